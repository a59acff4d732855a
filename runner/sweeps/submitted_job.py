"""A run that was submitted to a scheduler: whether it ended, and how."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.engine.saving.folder import RESULT, Result
from runner.errors import StorageError
from runner.status import Ending, Status
from runner.sweeps import slurm
from runner.sweeps.outcome import finalize_result, folder_of, lost_ending, saved_result
from runner.tasks.job import Job
from runner.user_paths import full, is_file

# The state of a job on this machine
LOCAL = "LOCAL"
# Seconds until a job's end counts: its files may arrive later on this machine
_SETTLE = 2.0


@dataclass(kw_only=True)
class Submitted:
    """A run that was submitted."""

    number: int
    job: Job
    id: str  # of its job
    handle: Any = None  # submitit's job, None if an earlier command submitted it
    before: object = None  # `mark_of` of its result before it was submitted
    state: slurm.State
    seen: object = ""  # `mark_of` of its result when it was read last
    gone: float | None = None  # when its job was first found to have ended
    stopped: bool = False  # with the sweep, as jobs on this machine are

    def ended(self) -> bool:
        """Return True if its job has ended."""
        return self.handle.done() if self.state.word == LOCAL else not self.state.lives


def result_of(each: Submitted) -> Result | None:
    """Return the result of a run that ended; None while its job may still change it."""
    mark = mark_of(each.job)
    if mark != each.before and mark != each.seen:
        each.seen = mark
        if (result := saved_result(each.job)) and result.status.is_result:
            return result
    if not each.ended():
        each.gone = None
        return None
    each.gone = each.gone or time.monotonic()
    return _concluded(each) if each.state.word == LOCAL or time.monotonic() - each.gone >= _SETTLE else None


def _concluded(each: Submitted) -> Result:
    """Return the result of a run whose job has ended: what it wrote itself, else what Slurm says."""
    own = saved_result(each.job) if mark_of(each.job) != each.before else None
    ending = each.state.ending(each.id)
    if own and own.status.is_result:
        return own
    # A run that a signal ended cannot know who sent it
    by_signal = own is not None and (own.exit or 0) > 128
    if own and own.status is not Status.RUNNING and not (ending and by_signal):
        return own
    if each.stopped:
        # It may have ended before it could write anything
        ending = Ending(Status.INTERRUPTED, 143, "stopped")
    if ending is None:
        state = "" if each.state.word == LOCAL else f" ({each.state})"
        errors = each.handle and each.handle.paths.stderr
        log = f"; see {errors}" if errors and is_file(errors, error=StorageError) else ""
        ending = lost_ending(f"its job {each.id} ended{state} and left no result{log}")
    return finalize_result(each.job, ending, 0.0)


def mark_of(job: Job) -> object:
    """Return what changes when the result of a run is written, None if it has none."""
    try:
        found = Path(full(folder_of(job) / RESULT)).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
