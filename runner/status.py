"""How a run stands or ended: its status, and the one table from an exception to status, exit code and reason."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import NamedTuple

from runner.errors import Diverged, PluginError, RunnerError, escaped

BUG = 70  # exit code of an error that no user can act on
_LONGEST_LINE = 2000  # characters of an error line


class Status(StrEnum):
    """State of the process of a run; `result.json` holds the value. It says nothing about the scores."""

    RUNNING = "running"
    DONE = "done"  # all steps were made
    STOPPED = "stopped"  # early stopping
    DIVERGED = "diverged"
    FAILED = "failed"
    TIMEOUT = "timeout"
    PRUNED = "pruned"  # ended early by a search, because of its scores
    INTERRUPTED = "interrupted"  # by a signal

    @property
    def complete(self) -> bool:
        """True if the run trained to its own end, so that its scores may be compared."""
        return self in (Status.DONE, Status.STOPPED)

    @property
    def finished(self) -> bool:
        """True if nothing is left to train: resuming shows the result again."""
        return self.complete or self is Status.PRUNED

    @property
    def is_result(self) -> bool:
        """True if a sweep keeps the run; it starts all others again."""
        return self.finished or self is Status.DIVERGED

    @property
    def depends_on_score(self) -> bool:
        """True if bad scores ended the run: leaving it out of a mean would flatter its configuration."""
        return self in (Status.DIVERGED, Status.PRUNED)

    @property
    def retry(self) -> bool:
        """True if another attempt may end better (`hydra.launcher.retries`)."""
        return self in (Status.FAILED, Status.TIMEOUT)


class Ending(NamedTuple):
    """How a run ended."""

    status: Status
    exit_code: int
    reason: str | None = None  # one line, None after success


SUCCESS = Ending(Status.DONE, 0)


class _Row(NamedTuple):
    kind: type[BaseException]
    status: Status
    exit_code: int  # of exceptions that carry none themselves


# The first row that fits counts. The exit codes of RunnerErrors stand in `runner.errors`, those of signals in the
# exception that `runner.engine.interruption` raises.
_TABLE = (
    _Row(Diverged, Status.DIVERGED, Diverged.exit_code),
    _Row(RunnerError, Status.FAILED, BUG),
    _Row(KeyboardInterrupt, Status.INTERRUPTED, 130),
    _Row(BaseException, Status.FAILED, BUG),
)
_CARRIES_CODE = (RunnerError, KeyboardInterrupt)


def ending(error: BaseException) -> Ending:
    """Return how a run ends that raises this exception."""
    row = next(row for row in _TABLE if isinstance(error, row.kind))
    code = getattr(error, "exit_code", row.exit_code) if isinstance(error, _CARRIES_CODE) else row.exit_code
    return Ending(row.status, code, _reason(error))


def ending_of_code(code: int) -> Ending:
    """Return how a run ended whose task returned an exit code."""
    if code in (130, 143):
        return Ending(Status.INTERRUPTED, code, "SIGINT" if code == 130 else "SIGTERM")
    return Ending(Status.FAILED, code, f"ended with exit code {code}") if code else SUCCESS


def print_error(error: BaseException, *, run: str = "") -> Ending:
    """Print an error to stderr as one line, after the traceback of a bug or a plugin's fault; return the ending.

    A signal prints nothing: whoever sent it knows. `run` names the run where there are several.
    """
    found = ending(error)
    if found.status is Status.INTERRUPTED:
        return found
    if isinstance(error, PluginError) and error.__cause__ is not None:
        _print_traceback(error.__cause__)
    elif found.exit_code == BUG:
        _print_traceback(error)
    bug = " (this is a bug in runner, please report it with the lines above)" if found.exit_code == BUG else ""
    where = f"{run}: " if run else ""
    sys.stderr.write(f"runner: error: {one_line(f'{where}{found.reason}')}{bug}\n")
    return found


def _print_traceback(error: BaseException) -> None:
    # Few command lines need it
    import traceback

    traceback.print_exception(error)


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, cut to a readable length."""
    shown = escaped(text)
    return shown if len(shown) <= _LONGEST_LINE else shown[: _LONGEST_LINE - 3] + "..."


def _reason(error: BaseException) -> str:
    if isinstance(error, RunnerError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "SIGINT"
    if isinstance(error, SystemExit):
        return f"SystemExit({error.code!r}): the code that ran ended the process"
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text}"
