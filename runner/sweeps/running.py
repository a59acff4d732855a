"""A trial that waits or runs: its attempt, its start, and how it is stopped."""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.engine.interruption import stop_signal
from runner.engine.saving.folder import Result
from runner.engine.saving.locking import lock
from runner.errors import Locked, StorageError
from runner.status import Ending, Status
from runner.sweeps.outcome import LOG, describe_exit, finalize_result, folder_of, saved_result
from runner.tasks.job import Job
from runner.user_paths import full

# Seconds that a stopped trial has to save itself
GRACE = 4.0
# The same for a trial that exceeded its time limit
_GRACE_AFTER_TIMEOUT = 1.0
# A trial that prints more bytes is stopped before it fills the disk
_MAX_LOG_BYTES = 64 << 20
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Worker(Protocol):
    """Sends signals to the processes of trials."""

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to a trial and all processes that it started."""


@dataclass(kw_only=True)
class Running:
    """A trial that has been submitted."""

    number: int
    job: Job
    attempt: int = 1
    worker: _Worker | None = None
    began: float = 0.0  # of this attempt
    cause: tuple[Status, str] | None = None  # status and reason, if the sweep stops it
    deadline: float = 0.0  # when it is killed, after it was stopped


def stop(each: Running, status: Status, reason: str, grace: float) -> None:
    """End a trial by SIGTERM (SIGINT where that is ignored), and by SIGKILL `grace` seconds later (`watch`)."""
    if each.cause is None and each.worker is not None:
        each.cause, each.deadline = (status, reason), time.monotonic() + grace
        each.worker.kill(each.number, stop_signal())


def watch(each: Running, timeout: float | None) -> None:
    """End a trial that exceeds its time limit, ignores SIGTERM, or prints too much."""
    now = time.monotonic()
    if each.deadline and now > each.deadline and each.worker is not None:
        each.worker.kill(each.number, signal.SIGKILL)
    if each.cause is None and timeout and now > each.began + timeout:
        stop(each, Status.TIMEOUT, f"took longer than hydra.launcher.timeout={timeout:g} s", _GRACE_AFTER_TIMEOUT)
    if each.cause is None and _log_size(folder_of(each.job) / LOG) > _MAX_LOG_BYTES:
        stop(each, Status.FAILED, f"printed more than {_MAX_LOG_BYTES >> 20} MB", 0.0)


def seconds_left(each: Running, timeout: float | None) -> float:
    """Return the seconds until `watch` must look at a trial again; inf if there is no such time."""
    until = each.deadline if each.cause else each.began + timeout if timeout else math.inf
    left = until - time.monotonic()
    return left if left > 0 else math.inf


def outcome(each: Running, code: int, seconds: float) -> Result:
    """Return how a trial ended, given its exit code or minus a signal's number, and write that into its folder."""
    folder = folder_of(each.job)
    _truncate(folder)
    result = saved_result(each.job)
    # What is in the folder may be of the process that holds it
    locked = code == Locked.exit_code and (result is None or result.exit != code)
    if each.cause or locked or result is None or result.status is Status.RUNNING:
        words = "another process held the folder of the trial when it began" if locked else describe_exit(code)
        # Whoever sent such a signal to the trial alone has stopped it, as Ctrl-C stops a run
        unasked = Status.INTERRUPTED if -code in _STOPS else Status.FAILED
        status, reason = each.cause or (unasked, words)
        result = finalize_result(each.job, Ending(status, _exit_code(code), reason), seconds)
    return result


def _exit_code(code: int) -> int:
    """Return an exit code as a shell gives it: 128 and the number of the signal that killed the process."""
    return code if code >= 0 else 128 - code


def _log_size(path: Path) -> int:
    """Return the bytes of a file, 0 if there is none."""
    try:
        return os.stat(full(path)).st_size  # noqa: PTH116
    except OSError:
        return 0


def _truncate(folder: Path) -> None:
    """Leave the first megabyte of a log that is too long, unless another process holds the folder."""
    if _log_size(folder / LOG) > _MAX_LOG_BYTES:
        # A log that cannot be changed stays long
        with suppress(OSError, Locked, StorageError), lock(folder):
            os.truncate(full(folder / LOG), 1 << 20)
