"""Failed trials: the error of their sweep, another attempt, or the end of all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from runner.engine.saving.folder import Result
from runner.errors import MOST_CHOICES, OUT_OF_MEMORY, PLUGIN, ConfigError, StorageError, TrialsFailed
from runner.status import Status
from runner.sweeps.outcome import Ended


def raise_if_failed(ended: Sequence[Ended], count: int, what: str) -> None:
    """Raise TrialsFailed, in one line, if any of `count` trials has no result.

    If none failed and a signal ended some, the exit code is that of the signal.
    """
    stopped = [each for each in ended if each.result.status is Status.INTERRUPTED]
    failed = [each for each in ended if not each.has_result and each.result.status is not Status.INTERRUPTED]
    words = [f"{len(failed)} of {count} {what} failed: {_names(failed)}"] if failed else []
    words += [f"{len(stopped)} of {count} {what} interrupted: {_names(stopped)}"] if stopped else []
    if words:
        raise trials_ended("; ".join(words), (each.result for each in stopped if not failed))


def trials_ended(text: str, stopped: Iterable[Result]) -> TrialsFailed:
    """Return the error for trials without a result; its exit code is that of the trials that a signal ended, if any."""
    error = TrialsFailed(text)
    codes = {each.exit for each in stopped}
    if codes:
        error.exit_code = 130 if codes == {130} else 143
        error.args = (f"{text}; repeat the command to continue",)
    return error


def _names(ended: Sequence[Ended]) -> str:
    """Return the names of trials, and how many are left out."""
    more = f", and {len(ended) - MOST_CHOICES} more" if len(ended) > MOST_CHOICES else ""
    return f"{', '.join(each.name for each in ended[:MOST_CHOICES])}{more}"


def may_pass(result: Result) -> bool:
    """Return True if another attempt at a trial may end better: any failure but that of a wrong command or config.

    Out of memory is reported as too large a model, but other processes may have used the memory. A plugin may
    fail once.
    """
    wrong = result.exit == ConfigError.exit_code and not (result.reason or "").startswith((OUT_OF_MEMORY, PLUGIN))
    return result.status.retry and not wrong


def raise_if_disk_full(result: Result) -> None:
    """Raise StorageError if a trial failed because the disk is full, which would end all others likewise."""
    full = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    no_storage = result.status is Status.FAILED and result.exit == StorageError.exit_code
    if no_storage and any(words in (result.reason or "") for words in full):
        raise StorageError(str(result.reason))
