"""How a run stands or ended: its status, and the one table from an exception to status, exit code and reason."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

from runner.errors import Diverged, PluginError, RunnerError, describe, message_of, one_line, text_of, type_name
from runner.printing import write_stderr

# Beginning of the note on an error that names the plugins
PLUGINS_IN_USE = "plugins in use: "
BUG = 70  # exit code of an error that no user can act on
# Lines of a traceback that are printed at most, half of them from its beginning
_TRACEBACK_LINES = 200
# Characters of the object that `sys.exit` got
_CODE_LENGTH = 400
# 128 plus the number of the signal, as in shells
_INTERRUPTED = {129: "SIGHUP", 130: "SIGINT", 143: "SIGTERM"}


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
    """Return how a run ends that raises this exception; the reason is one line of limited length."""
    # The type cannot lie, as `__class__` can
    kind = type(error)
    row = next(row for row in _TABLE if issubclass(kind, row.kind))
    code = _own_code(error, row.exit_code) if issubclass(kind, _CARRIES_CODE) else row.exit_code
    return Ending(row.status, code, one_line(_reason(error)))


def _own_code(error: BaseException, default: int) -> int:
    """Return the exit code that an exception carries, if it is one: a plugin may have a class of its own."""
    with suppress(Exception):
        code = getattr(error, "exit_code", default)
        if type(code) is int and 0 < code < 256:
            return code
    # A subclass may say nothing useful, its base does
    codes = (vars(kind).get("exit_code") for kind in type(error).__mro__)
    return next((code for code in codes if type(code) is int and 0 < code < 256), default)


def ending_of_code(code: int) -> Ending:
    """Return how a run ended whose task returned an exit code."""
    if code in _INTERRUPTED:
        return Ending(Status.INTERRUPTED, code, _INTERRUPTED[code])
    return Ending(Status.FAILED, code, f"ended with exit code {code}") if code else SUCCESS


def print_error(error: BaseException) -> Ending:
    """Print an error to stderr as one line, after the traceback of a bug, before that of a plugin; return the ending.

    A signal prints nothing: whoever sent it knows.
    """
    found = ending(error)
    if found.status is Status.INTERRUPTED:
        return found
    if found.exit_code == BUG:
        _print_traceback(error)
    bug = _bug_words(error) if found.exit_code == BUG else ""
    write_stderr(f"runner: error: {one_line(str(found.reason))}{bug}\n")
    if type(error) is PluginError:
        _print_lines(error.lines)
    return found


def _bug_words(error: BaseException) -> str:
    """Return what to do about an error that no frame of a plugin raised, in words."""
    notes = vars(error).get("__notes__") if hasattr(error, "__dict__") else None
    if isinstance(notes, list) and any(isinstance(note, str) and note.startswith(PLUGINS_IN_USE) for note in notes):
        return " (a plugin is in use: what it returns may be wrong; else please report the lines above)"
    return " (this is a bug in runner, please report it with the lines above)"


def _print_traceback(error: BaseException) -> None:
    """Print a traceback, of a long one the beginning and the end."""
    # Few command lines need it
    import traceback

    try:
        lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    except BaseException as failure:
        lines = [f"the traceback of {type_name(error)} cannot be shown ({describe(failure)})"]
    _print_lines(lines)


def _print_lines(lines: Sequence[str]) -> None:
    """Print lines, of many the beginning and the end."""
    if (more := len(lines) - _TRACEBACK_LINES) > 0:
        half = _TRACEBACK_LINES // 2
        lines = [*lines[:half], f"... {more} more lines ...", *lines[-half:]]
    write_stderr("".join(f"{one_line(line)}\n" for line in lines))


def _reason(error: BaseException) -> str:
    """Return why a run ended."""
    kind = type(error)
    if issubclass(kind, RunnerError):
        return message_of(error) or type_name(error)
    if issubclass(kind, KeyboardInterrupt):
        return message_of(error) or "SIGINT"
    if issubclass(type(error), SystemExit):
        code = text_of(vars(SystemExit)["code"].__get__(error), repr)
        return f"SystemExit({one_line(code, _CODE_LENGTH)}): the code that ran ended the process"
    return describe(error)
