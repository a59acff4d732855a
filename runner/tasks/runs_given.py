"""The runs that a task reads together: the patterns of `runs=`, and the name of what they are."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from runner import user_paths
from runner.errors import ConfigError
from runner.tasks.job import Job


def patterns_of(job: Job) -> list[str]:
    """Return the patterns given; without any, the latest sweep, or all of `outputs` if there is no sweep."""
    runs: str | list[str] | None = job.config["runs"]
    if runs == []:
        raise ConfigError("runs: got [], must name at least one run folder, sweep or pattern")
    if runs is not None:
        return [runs] if isinstance(runs, str) else runs
    outputs = Path(job.config["outputs"])
    names = user_paths.listed(outputs / "sweeps", key="outputs")
    found = [(outputs / "sweeps" / name, user_paths.status(outputs / "sweeps" / name)) for name in names]
    sweeps = [(status.st_mtime, path.name, path) for path, status in found if status and stat.S_ISDIR(status.st_mode)]
    return [str(max(sweeps)[2] if sweeps else outputs)]


def subject_of(patterns: Sequence[str]) -> str:
    """Return the name of the one sweep or folder that patterns name, else `runs`."""
    name = Path(patterns[0]).name if len(patterns) == 1 else ""
    return name if name and not set(name) & set("*?[]") else "runs"
