"""task=clean: remove the weights files of finished runs that are not needed any more."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from runner.comparing.runs import find_runs
from runner.engine.saving import storage
from runner.engine.saving.folder import read_result, write_result
from runner.engine.saving.keep import keep_only, superfluous
from runner.engine.saving.locking import lock
from runner.errors import CheckpointError, ConfigError, Locked, RunnerError
from runner.printing import size_in_words, visible, write_stderr, write_stdout
from runner.registry import register
from runner.roles import Role
from runner.tasks.job import Job


@register("task")
def clean(job: Job, *, keep: Literal["best", "none"], delete: Annotated[bool, Role.EXECUTION]) -> int:
    """List or remove checkpoint files of finished runs; only files that a manifest of the run names.

    Runs that go on, are locked by another process or did not finish stay as they are, since they can be resumed.
    """
    patterns = _patterns(job)
    total, runs = 0, 0
    for folder in _finished(patterns):
        try:
            freed = _clean_run(folder, keep, delete=delete)
        except RunnerError as error:
            write_stderr(f"runner: warning: left as it is: {error}\n")
            continue
        if freed:
            total, runs = total + freed, runs + 1
            write_stdout(f"{size_in_words(freed):>10}  {visible(str(folder))}\n")
    what = f"{size_in_words(total)} in {runs} run{'' if runs == 1 else 's'}"
    if delete:
        write_stdout(f"freed {what}\n")
    else:
        again = shlex.join(["python", "-m", "runner", *job.overrides, "task.delete=true"])
        write_stdout(f"{what}; nothing was removed{f'; to remove them: {again}' if runs else ''}\n")
    return 0


def _patterns(job: Job) -> Sequence[str]:
    """Return what `runs` names; raises ConfigError if it names nothing, since files are removed."""
    runs = job.config["runs"]
    if not runs:
        raise ConfigError("runs: got null; expected run folders, a sweep or a pattern: task=clean runs=outputs/<name>")
    return [runs] if isinstance(runs, str) else list(runs)


def _finished(patterns: Sequence[str]) -> Iterator[Path]:
    """Yield the folders of the finished training runs that patterns name."""
    for run in find_runs(patterns).runs:
        with suppress(CheckpointError):
            if read_result(run.folder).status.finished:
                yield run.folder


def _clean_run(folder: Path, keep: str, *, delete: bool) -> int:
    """Return the bytes that a run need not keep, after removing them if `delete`; raises Locked, StorageError."""
    found = read_result(folder)
    if keep == "best" and found.weights is None:
        # It keeps no weights already
        return 0
    if not delete:
        kept = found.weights if keep == "best" else None
        return sum(superfluous(folder, kept, snapshots=found.snapshots or ()).values())
    with lock(folder):
        # What was found before the lock may have changed
        result = read_result(folder)
        if not result.status.finished:
            raise Locked(f"{storage.printable(folder)}: goes on")
        if keep == "none" and result.weights is not None:
            result.weights = result.snapshots = None
            write_result(folder, result)
        return keep_only(folder, result.weights, snapshots=result.snapshots or ())
