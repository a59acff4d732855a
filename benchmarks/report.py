"""Write what the benchmark measured: a JSON file with every round, a Markdown table, a bar chart, and the machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.child_process import Child
from benchmarks.targets import NOT_ASKED, Result


def markdown(results: Sequence[Result], machine: Mapping[str, str]) -> str:
    """Return the table, followed by the targets that were not measured."""
    rows = [
        "| target | compared with | value | bound | stretch | median | range (n) | ours | other | |",
        "|---" * 10 + "|",
    ]
    rows += [_row(result) for result in results if result.pairs]
    absent = [
        f"- {r.target.name}: not measured: {r.measured}" for r in results if not r.pairs and r.measured != NOT_ASKED
    ]
    notes = ["", *absent] if absent else []
    return "\n".join([_line(dict(machine)), "", *rows, *notes, ""])


def _row(result: Result) -> str:
    """Return a row of the table."""
    target, values = result.target, result.values
    assert values is not None
    ours, other = (f"{number:.4g} {target.unit}" for number in result.medians)
    sign = ">=" if target.compares == "other / ours" else "<="
    bounds = [f"{sign} {bound:g}" if bound is not None else "" for bound in (target.bound, target.stretch)]
    spread = f"{values.low:.3f} to {values.high:.3f} ({values.n})"
    cells = [target.title, target.other, target.compares, *bounds, f"{values.median:.3f}", spread, ours]
    return f"| {' | '.join([*cells, other if target.other else '', result.verdict])} |"


def write(folder: Path, results: Sequence[Result], machine: Mapping[str, str], losses: Mapping[str, Any]) -> None:
    """Write results.json, results.md and results.png."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema": 1, "machine": machine, "losses": losses, "targets": [r.as_json() for r in results]}
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "results.md").write_text(f"# Benchmarks\n\n{markdown(results, machine)}\n![chart](results.png)\n")
    draw(folder / "results.png", results, _line(dict(machine)))


_PACKAGES = ("torch", "torchvision", "lightning", "transformers", "accelerate", "timm", "tensorboard", "numpy")


def describe_machine(threads: int) -> dict[str, str]:
    """Return hardware, versions and date, without names or paths of this machine."""
    with Child(_send_gpu_name) as child:
        gpu = child.receive()
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": _cpu_name(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "threads": str(threads),
        "gpu": gpu or "none",
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: number for name in _PACKAGES if (number := _version(name))},
    }


def _line(machine: dict[str, str]) -> str:
    """Return the description of the machine in one line."""
    head = f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores (load {machine['load']} at the start)"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", *_PACKAGES) if name in machine)
    return f"{head}; torch on {machine['threads']} CPU thread(s); GPU: {machine['gpu']}; {versions}"


def _cpu_name() -> str:
    """Return the name of the CPU."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str:
    """Return the version of a package, or an empty string."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _send_gpu_name(connection: Connection) -> None:
    """Send the name of the GPU, or an empty string."""
    import torch

    connection.send(torch.cuda.get_device_name() if torch.cuda.is_available() else "")
