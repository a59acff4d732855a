"""Where a run comes from: code, versions, machine and settings outside the config. It never fails and takes no time."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import runner

PACKAGES = ("torch", "numpy", "hydra-core", "tensorboard", "safetensors")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
PREFIXES = ("PYTORCH_", "RUNNER_")
PATIENCE = 1.0  # seconds for git, in a repository on a slow disk
# A repository must not be able to start programs (core.fsmonitor) or to be written to by our asking.
GIT = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false"]
STATUS = [*GIT, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]

_kept: dict[Path, dict[str, Any] | None] = {}  # commits of the code that this process has loaded for all its forks


def provenance(overrides: Sequence[str], *, device: str) -> dict[str, Any]:
    """Return, for JSON, all that a run depends on beside its config; `device` is the name of what it computes on."""
    here, package = repositories()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": list(sys.argv),
        "overrides": list(overrides),
        "git": None if here is None else loaded(here),
        "git_package": None if package in (None, here) else loaded(package),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": device,
        "cpus": os.cpu_count(),
        "threads": {"intra": torch.get_num_threads(), "inter": torch.get_num_interop_threads()},
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name in VARIABLES or name.startswith(PREFIXES)
        },
    }


def keep() -> None:
    """Look now for what forks of this process would each look for: the code that they run is the one that is loaded."""
    _kept.update({top: commit(top) for top in repositories() if top is not None})
    versions()


def loaded(top: Path) -> dict[str, Any] | None:
    """Return the commit of the code that runs here: of when it was loaded, where that was kept."""
    return _kept[top] if top in _kept else commit(top)


def repositories() -> tuple[Path | None, Path | None]:
    """Return the working trees of the present folder and of this package."""
    return repository(Path()), repository(Path(runner.__file__).parent)


def repository(folder: Path) -> Path | None:
    """Return the top of the git working tree that a folder lies in; an installed package lies in none."""
    try:
        folder = folder.resolve()
        tops = (top for top in (folder, *folder.parents) if (top / ".git").exists())
        return None if "site-packages" in folder.parts else next(tops, None)
    except OSError:  # the working directory is gone, or not ours to look at
        return None


def commit(top: Path) -> dict[str, Any] | None:
    """Return the commit of a working tree and whether tracked files differ from it; None if git does not tell."""
    # inside a git hook GIT_DIR names another repository than the folder's
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        said = subprocess.run(
            STATUS, cwd=top, env=outside, capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=True
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    lines = said.splitlines()
    oid = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    # of a repository without a commit git says "(initial)"
    return {"commit": oid if oid.isalnum() else None, "dirty": any(not line.startswith("#") for line in lines)}


@functools.cache
def versions() -> dict[str, str | None]:
    """Return the versions of what computes and writes."""
    return {
        "python": platform.python_version(),
        "runner": runner.__version__,
        **{name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
    }


def version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
