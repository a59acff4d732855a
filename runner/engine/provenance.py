"""Provenance of a run: code, versions, machine and environment variables. Collecting it never raises an error."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import runner
from runner import user_paths
from runner.decoration import decorative
from runner.errors import RunnerError
from runner.passwords import masked, masked_word

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "hydra-core", "tensorboard", "safetensors")
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
_PREFIXES = ("PYTORCH_", "RUNNER_")
# Seconds to wait for git: a repository on a slow disk must not delay the run.
GIT_TIMEOUT = 1.0
# The query must neither start a program that the repository configures (core.fsmonitor) nor write (optional locks).
_GIT = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false"]
_STATUS = [*_GIT, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]

# The commit of each repository when this process imported its code. Forked workers run that code even if the
# repository changes in the meantime.
_loaded_commits: dict[Path, dict[str, Any] | None] = {}


def provenance(overrides: Sequence[str], *, device: str) -> dict[str, Any]:
    """Return what a run depends on besides its config, as JSON values.

    Args:
        overrides: The overrides on the command line.
        device: The name of the device.

    Returns:
        The content of `environment.json`. `git` is about the repository of the current folder, `git_package` about that
        of the package if it is another one; null outside a repository.
    """
    known: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": [masked_word(word) for word in sys.argv],
        "overrides": [masked_word(word) for word in overrides],
    }
    for entry, collect in _COLLECTED.items():
        known[entry] = None
        with decorative(f"{entry} in environment.json: not known"):
            known[entry] = collect()
    return {**known, "device": device}


def code_origin() -> dict[str, Any]:
    """Return the commits and versions of `provenance` alone, as they are now; imports no torch."""
    here, package = _repositories()
    return {
        "git": None if here is None else _loaded_commit(here),
        "git_package": None if package in (None, here) else _loaded_commit(package),
        "versions": _versions(),
    }


def cache_for_forks() -> None:
    """Read commits and versions once, before forking: the forks run the code that this process has imported."""
    with decorative("git and versions in environment.json: not known"):
        _loaded_commits.update({top: commit(top) for top in _repositories() if top is not None})
        _versions()


def _git() -> dict[str, Any] | None:
    """Return the commit of the repository of the current folder."""
    here, _ = _repositories()
    return None if here is None else _loaded_commit(here)


def _git_package() -> dict[str, Any] | None:
    """Return the commit of the repository of this package, None if it is that of the current folder."""
    here, package = _repositories()
    return None if package is None or package == here else _loaded_commit(package)


def _platform() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _threads() -> dict[str, int]:
    import torch

    return {"intra": torch.get_num_threads(), "inter": torch.get_num_interop_threads()}


def _environment() -> dict[str, str]:
    """Return the environment variables that may change numbers or speed."""
    names = sorted(name for name in os.environ if name in _VARIABLES or name.startswith(_PREFIXES))
    return {name: masked(os.environ[name]) for name in names}


def _loaded_commit(top: Path) -> dict[str, Any] | None:
    """Return the commit of the imported code if `cache_for_forks` was called, else the current commit."""
    return _loaded_commits[top] if top in _loaded_commits else commit(top)


def _repositories() -> tuple[Path | None, Path | None]:
    """Return the git working trees of the current folder and of this package."""
    return repository(Path()), repository(Path(runner.__file__).parent)


def repository(folder: Path) -> Path | None:
    """Return the root of the git working tree that contains a folder; None outside one and for an installed package."""
    try:
        folder = user_paths.real(folder)
        tops = (top for top in (folder, *folder.parents) if user_paths.exists(top / ".git"))
        return None if "site-packages" in folder.parts else next(tops, None)
    except (OSError, RunnerError):
        # The current folder was deleted or is not readable.
        return None


def commit(top: Path) -> dict[str, Any] | None:
    """Return `{"commit": hash, "dirty": bool}` of a working tree, or None if git fails.

    `dirty` is True if tracked files differ from the commit.
    """
    # In a git hook, GIT_DIR and other variables point to the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        output = subprocess.run(
            _STATUS,
            cwd=top,
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=GIT_TIMEOUT,
            check=True,
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
    }


def _version(package: str) -> str | None:
    """Return the version of an installed package."""
    with suppress(Exception):  # it is not installed, or its metadata are damaged
        return metadata.version(package)
    return None


# What can fail is collected entry by entry
_COLLECTED: dict[str, Callable[[], Any]] = {
    "git": _git,
    "git_package": _git_package,
    "versions": _versions,
    "platform": _platform,
    "cpus": os.cpu_count,
    "threads": _threads,
    "environment": _environment,
}
