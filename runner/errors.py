"""Errors that the user can act on: one line of text and an exit code; and the common form of their texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from runner.passwords import masked

# The messages of torch, numpy and the allocators about sizes that do not fit into memory.
_TOO_LARGE = (
    r"allocate memory|out of memory|Unable to allocate|overflowed|multiplication overflow|Overflow when"
    r"|STATUS_ALLOC_FAILED|Python int too large|array is too big|Maximum allowed dimension|negative dimension"
)
_TORCH = "OutOfMemoryError"  # torch's class, which is not imported here
# The beginning of the line about them.
OUT_OF_MEMORY = "out of memory"
# The beginning of the line about an exception in a plugin
PLUGIN = "plugin "
# Choices that one line lists at most.
MOST_CHOICES = 8
# Characters of a value that one line quotes at most.
_VALUE_LENGTH = 80
# Characters of a key, or of a file and a key, that one line quotes at most.
KEY = 400
# Characters of a line about an error, of its end where its middle is left out, and of the name of a class
_LINE_LENGTH, _TAIL_LENGTH, _NAME_LENGTH = 2000, 500, 200
# Exceptions of a group that one line names at most, and those that are searched
_MAX_MEMBERS, _MAX_GROUPS = 3, 10_000


class RunnerError(Exception):
    """A failure that the user can act on: its text is one line, `exit_code` is the process's."""

    exit_code = 70
    folder: Path | None = None  # of the run that failed; the Python API sets it


class TrialsFailed(RunnerError):
    """Some trials of a sweep failed."""

    exit_code = 1


class InvariantViolated(RunnerError):
    """Something that holds in every correct training did not hold in a run."""

    exit_code = 1


class GateFailed(RunnerError):
    """A check failed that a training must pass; the report in its folder says which and why."""

    exit_code = 1


class ConfigError(RunnerError):
    """The config or the command line is wrong."""

    exit_code = 2


class CheckpointError(RunnerError):
    """A checkpoint is missing, damaged or not of this run."""

    exit_code = 3


class StorageError(RunnerError):
    """Cannot write to the disk or the folder."""

    exit_code = 4


class Diverged(RunnerError):
    """A loss, gradient or weight is not finite."""

    exit_code = 5


class Locked(RunnerError):
    """Another process holds the run folder."""

    exit_code = 6


class DataError(RunnerError):
    """The data are missing, broken or do not fit the config."""

    exit_code = 7


class PluginError(ConfigError):
    """The user's own code raised, or returned something wrong: the text names its file and line.

    `lines` is the traceback from the first frame of that code on.
    """

    def __init__(self, text: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.lines = lines

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again in another process."""
        return type(self), (str(self), self.lines)


def too_large(error: BaseException) -> ConfigError | None:
    """Return the ConfigError for an error about sizes that do not fit into memory, None for other errors."""
    kind, message = type(error), brief(message_of(error), _LINE_LENGTH)
    if (
        issubclass(kind, MemoryError)
        or any(each.__name__ == _TORCH for each in kind.__mro__)
        or (issubclass(kind, (RuntimeError, OverflowError, ValueError)) and re.search(_TOO_LARGE, message))
    ):
        text = short_reason(error)
        return ConfigError(f"{OUT_OF_MEMORY}; choose a smaller model, batch or image ({brief(text, KEY)})")
    return None


def message_of(error: BaseException) -> str:
    """Return the text of an exception, also where its `__str__` raises."""
    return text_of(error, str)


def text_of(value: object, convert: Callable[[Any], str]) -> str:
    """Return `str` or `repr` of a value, in words where that raises: what a plugin raises may do anything."""
    try:
        # A subclass of str could have methods of its own
        return str.__str__(convert(value))
    except BaseException as failure:
        return f"<{convert.__name__}() of {type_name(value)} raised {type_name(failure)}>"


def type_name(value: object) -> str:
    """Return the name of a value's class, whatever its metaclass says."""
    return brief(str.__str__(vars(type)["__name__"].__get__(type(value))), _NAME_LENGTH)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text that is not blank, empty if there is none."""
    # More than a line shows need not be searched
    lines = message_of(error)[: 10 * _LINE_LENGTH].splitlines()
    return next((line.strip() for line in lines if line.strip()), "")


def short_reason(error: BaseException) -> str:
    """Return the first line of an exception's text, the name of its class if there is none."""
    return first_line(error) or type_name(error)


def describe(error: BaseException) -> str:
    """Return class and first line of an exception; of a group also those of its first members."""
    text = ": ".join(filter(None, (type_name(error), first_line(error))))
    if not issubclass(type(error), BaseExceptionGroup):
        return text
    found = [": ".join(filter(None, (type_name(each), first_line(each)))) for each in _members(error)]
    return f"{text} [{'; '.join(found)}]" if found else text


def _members(group: BaseException) -> list[BaseException]:
    """Return the first exceptions of a group that are no groups."""
    found: list[BaseException] = []
    left = [group]
    # Groups may hold each other without end
    for _ in range(_MAX_GROUPS):
        if not left or len(found) == _MAX_MEMBERS:
            break
        each = left.pop(0)
        if issubclass(type(each), BaseExceptionGroup):
            # A subclass cannot replace this attribute
            left = [*vars(BaseExceptionGroup)["exceptions"].__get__(each)[:_MAX_MEMBERS], *left]
        else:
            found.append(each)
    return found


def one_line(text: str, most: int = _LINE_LENGTH) -> str:
    """Return a text on one line without control characters and passwords; of a long one the middle is left out."""
    tail = min(_TAIL_LENGTH, most // 4)
    text = masked(text)
    # An escape is at most ten characters, and what is left out need not be escaped
    shown = escaped(text if len(text) <= 2 * most else f"{text[:most]}{text[-most:]}")
    return shown if len(shown) <= most else f"{shown[: most - tail - 5]} ... {shown[-tail:]}"


def unknown(key: str, what: str, given: str, choices: Iterable[str], *, hint: str = "") -> ConfigError:
    """Return the error for a name that is not one of `choices`, nearest names first.

    `hint` replaces the suggestion, and names that are spelled alike in a long list of other keys.
    """
    # Late: tables that only an error needs
    from runner.spelling import nearest
    from runner.value_hints import name_hint

    ranked = nearest(given, choices)
    more = f", ... {len(ranked) - MOST_CHOICES} more: task=list" if len(ranked) > MOST_CHOICES else ""
    names = ", ".join(ranked[:MOST_CHOICES] if more else sorted(ranked)) or "nothing, it has none"
    listed = f" (choose from: {names}{more})"
    words = hint + ("" if more else listed) if hint else name_hint(key, given, ranked) + listed
    return ConfigError(f"{brief(key, KEY)}: unknown {what} '{brief(given)}'{words}")


def wrong(key: str, value: Any, allowed: str) -> ConfigError:
    """Return the error for a value of the wrong type or out of range."""
    # Late: tables that only an error needs
    from runner.value_hints import value_hint

    return ConfigError(f"{brief(key, KEY)}: got {brief(shown(value))}, must be {allowed}{value_hint(key, value)}")


def shown(value: Any) -> str:
    """Return a value as YAML writes it, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) else str(value)


def escaped(name: str) -> str:
    r"""Return the name of a file or class on one line; control characters and bytes that are not UTF-8 are escaped.

    Python holds such a byte as a lone surrogate (PEP 383): the byte 0xE9 is shown as `\xe9`.
    """
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else _escape_character(character) for character in name)


def _escape_character(character: str) -> str:
    """Return the escape of a character that cannot be printed."""
    undecoded = 0xDC80 <= ord(character) <= 0xDCFF
    return f"\\x{ord(character) - 0xDC00:02x}" if undecoded else character.encode("unicode_escape").decode()


def brief(text: str, most: int = _VALUE_LENGTH) -> str:
    """Return a text cut to a length that leaves room for the message about it, without passwords."""
    text = masked(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."
