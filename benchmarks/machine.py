"""Where the figures come from: processor, cores, GPU, versions, date."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.children import Child

PACKAGES = ("torch", "torchvision", "lightning", "transformers", "accelerate", "timm", "tensorboard", "numpy")


def machine(threads: int) -> dict[str, str]:
    """Return what the figures depend on, without names or paths of this machine."""
    with Child(gpu_name) as child:
        gpu = child.receive()
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": cpu_name(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "threads": str(threads),
        "gpu": gpu or "none",
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: found for name in PACKAGES if (found := installed(name))},
    }


def line(machine: dict[str, str]) -> str:
    """Return the machine in one line."""
    head = f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores (load {machine['load']} at the start)"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", *PACKAGES) if name in machine)
    return f"{head}; torch on {machine['threads']} CPU thread(s); GPU: {machine['gpu']}; {versions}"


def cpu_name() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def installed(package: str) -> str:
    """Return the version of a package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def gpu_name(connection: Connection) -> None:
    """Send the GPU's name, or nothing."""
    import torch

    connection.send(torch.cuda.get_device_name() if torch.cuda.is_available() else "")
