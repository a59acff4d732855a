"""Provenance of a run: code, versions, machine and settings outside the config. Collecting it never fails."""

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

_PACKAGES = ("torch", "numpy", "hydra-core", "tensorboard", "safetensors")
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
_PREFIXES = ("PYTORCH_", "RUNNER_")
# Seconds to wait for git, in a repository on a slow disk.
PATIENCE = 1.0
# The query must not start programs that a repository names (core.fsmonitor) nor write to it (optional locks).
_GIT = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false"]
_STATUS = [*_GIT, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]

# Commits of the code that this process loaded, by repository; its forks run the same code.
_kept: dict[Path, dict[str, Any] | None] = {}


def provenance(overrides: Sequence[str], *, device: str) -> dict[str, Any]:
    """Return what a run depends on beside its config, ready for JSON.

    Args:
        overrides: The overrides of the command line.
        device: The name of the device.
    """
    here, package = _repositories()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": list(sys.argv),
        "overrides": list(overrides),
        "git": None if here is None else _loaded(here),
        "git_package": None if package in (None, here) else _loaded(package),
        "versions": _versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": device,
        "cpus": os.cpu_count(),
        "threads": {"intra": torch.get_num_threads(), "inter": torch.get_num_interop_threads()},
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in _VARIABLES or name.startswith(_PREFIXES)
        },
    }


def keep() -> None:
    """Determine commits and versions once for all forks of this process, which run the code that it has loaded."""
    _kept.update({top: commit(top) for top in _repositories() if top is not None})
    _versions()


def _loaded(top: Path) -> dict[str, Any] | None:
    """Return the commit of the running code: of the time when it was loaded, if `keep` was called."""
    return _kept[top] if top in _kept else commit(top)


def _repositories() -> tuple[Path | None, Path | None]:
    """Return the git working trees of the current folder and of this package."""
    return repository(Path()), repository(Path(runner.__file__).parent)


def repository(folder: Path) -> Path | None:
    """Return the top of the git working tree that contains a folder; None for an installed package."""
    try:
        folder = folder.resolve()
        tops = (top for top in (folder, *folder.parents) if (top / ".git").exists())
        return None if "site-packages" in folder.parts else next(tops, None)
    except OSError:
        # The working directory is gone or not readable.
        return None


def commit(top: Path) -> dict[str, Any] | None:
    """Return the commit of a working tree and whether tracked files differ from it; None if git fails."""
    # Inside a git hook GIT_DIR names another repository than the folder's.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        output = subprocess.run(
            _STATUS, cwd=top, env=outside, capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=True
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    lines = output.splitlines()
    oid = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    # Git prints "(initial)" for a repository without a commit.
    return {"commit": oid if oid.isalnum() else None, "dirty": any(not line.startswith("#") for line in lines)}


@functools.cache
def _versions() -> dict[str, str | None]:
    """Return the versions of Python, this package and the main dependencies."""
    return {
        "python": platform.python_version(),
        "runner": runner.__version__,
        **{name: _version(name) for name in _PACKAGES},
        "cuda": torch.version.cuda,
    }


def _version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
