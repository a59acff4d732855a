"""How the run in a folder stands, by the evidence there: a status that means scores counts only with these scores."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.engine.monitor import Monitor
from runner.engine.saving import storage
from runner.engine.saving.data_folders import data_of
from runner.engine.saving.folder import RESULT, Result, ResultLost, read_result
from runner.errors import CheckpointError, StorageError
from runner.status import Status

# Unreadable files of one name that a folder may keep
_MOST_KEPT = 1000


def proven(result: Result, monitor: str | None) -> Result:
    """Return a result whose status its scores prove; one that lacks its scores is `failed`, with the reason.

    Args:
        result: The content of `result.json`.
        monitor: The score that a training run goes by, as in `val/accuracy`; None for a task that has none.

    """
    if monitor is None or not result.status.finished or _has_scores(result, monitor):
        return result
    reason = f"{RESULT} says {result.status}, but has no {monitor}"
    return replace(result, status=Status.FAILED, exit=None, reason=reason)


def standing(folder: Path, monitor: str | None) -> Result:
    """Return the proven result of the run in a folder; of one that cannot be read a failed one with the reason."""
    try:
        return proven(read_result(folder), monitor)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{storage.printable(folder)}/")
        return Result(status=Status.FAILED, reason=reason)


def monitor_of(config: Any) -> str | None:
    """Return the score that the run of a config goes by, None if its task does not train."""
    task = config.get("task") if isinstance(config, dict) else None
    trains = isinstance(task, dict) and task.get("name") == "train"
    return str(config.get("monitor", "val/accuracy")) if trains else None


def best_score(result: Result, monitor: str, at: str = "best") -> float:
    """Return the monitored score of the best (or `last`) validation in a result, nan if it has none."""
    found: Any = result.scores
    for word in (Monitor(monitor).split, at, Monitor(monitor).metric):
        found = found.get(word) if isinstance(found, dict) else None
    return float(found) if isinstance(found, (int, float)) else math.nan


def _has_scores(result: Result, monitor: str) -> bool:
    """Return True if a result holds the monitored score of the best and of the last validation."""
    return all(math.isfinite(best_score(result, monitor, at)) for at in ("best", "last"))


def result_to_continue(folder: Path, *, repair: bool) -> tuple[Result, str]:
    """Return the result with which a run goes on, and a line about it, empty if there is nothing to say.

    A missing result is rebuilt from the checkpoint, by the run itself. One that cannot be read is kept beside it if
    `repair` is True, and then counts as missing; otherwise CheckpointError is raised.
    """
    try:
        return read_result(folder), ""
    except ResultLost as error:
        path = folder / RESULT
        what = "is missing"
        if user_paths.exists(path, error=CheckpointError, links=False):
            if not repair:
                raise CheckpointError(f"{error}; remove it to go on from the last checkpoint") from error
            what = f"cannot be read, and is kept as {set_aside(path).name}"
        known = data_of(folder)
        rebuilt = Result(data=[known] if known else None)
        return rebuilt, f"{storage.printable(path)} {what}: the run goes on from its last checkpoint"


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read to `<name>.unreadable` (or `-2`, ...), and return its new path."""
    names = itertools.chain([""], (f"-{number}" for number in range(2, _MOST_KEPT)))
    free = (path.with_name(f"{path.name}.unreadable{end}") for end in names)
    kept = next(each for each in free if not user_paths.exists(each, error=StorageError, links=False))
    with storage.convert_os_errors(path):
        storage.disk.replace(path, kept)
    return kept
