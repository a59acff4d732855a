"""Messages of decoders about files that they can read, kept by kind instead of printed without the file's name.

Pillow warns through Python's `warnings`. libtiff writes to standard error from C, through a handler that can be
replaced. Both are routed to the thread that decodes. Standard error itself is never redirected: that would take the
lines of other threads with it.
"""

from __future__ import annotations

import ctypes
import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from runner.engine.saving.storage import printable
from runner.errors import one_line
from runner.printing import write_stderr

# Position of an unreadable file -> reason
Unreadable = dict[int, str]

# Longest text that is kept, and kinds that get a line each
_MAX_TEXT = 200
_MAX_KINDS = 8
# What differs between messages of one kind: quoted bytes, hexadecimal code words of libtiff, numbers
_DETAILS = re.compile(r"b?'[^']*'|\(x \w+\)|\d+")


@dataclass
class Findings:
    """Results of decoding some files, beside their pixels.

    Attributes:
        bad: Why files cannot be decoded, by position.
        kinds: For each kind of message: number of files, position of the first, and its text.
    """

    bad: Unreadable = field(default_factory=dict)
    kinds: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def add(self, place: int, texts: Iterable[str]) -> None:
        """Count a file's messages, each kind once."""
        for kind, text in {_DETAILS.sub("#", text): text for text in reversed(list(texts))}.items():
            self._count(kind, 1, place, text)

    def merge(self, later: Findings) -> None:
        """Add the findings about later files."""
        self.bad |= later.bad
        for kind, found in later.kinds.items():
            self._count(kind, *found)

    def moved(self, by: int) -> Findings:
        """Return the same with each position moved by some files."""
        bad = {place + by: why for place, why in self.bad.items()}
        kinds = {kind: (count, place + by, text) for kind, (count, place, text) in self.kinds.items()}
        return Findings(bad, kinds)

    def lines(self, files: Sequence[str]) -> tuple[str, ...]:
        """Return a line for each kind of message, the most frequent first."""
        ranked = sorted(self.kinds.values(), key=lambda found: (-found[0], found[1]))
        lines = [f"data: {text}: {_counted(count, files[place])}" for count, place, text in ranked[:_MAX_KINDS]]
        if len(ranked) > _MAX_KINDS:
            lines.append(f"data: {len(ranked) - _MAX_KINDS} more kinds of messages from decoders")
        return tuple(lines)

    def _count(self, kind: str, count: int, place: int, text: str) -> None:
        """Count a kind in more files."""
        before = self.kinds.get(kind)
        self.kinds[kind] = (before[0] + count, *before[1:]) if before else (count, place, text)


def _counted(count: int, first: str) -> str:
    """Return how many images there are, and the first."""
    name = printable(Path(first))
    return f"1 image, {name}" if count == 1 else f"{count} images, the first is {name}"


class _Current(threading.local):
    """The messages of the file that a thread decodes; None if it decodes none."""

    texts: list[str] | None = None


_current = _Current()


def note(text: str) -> None:
    """Keep a message about the file that this thread decodes."""
    if _current.texts is not None:
        _current.texts.append(" ".join(text.split())[:_MAX_TEXT])


class Collected:
    """Gives `with` a list that receives the messages about one file, from this thread, inside `routed`."""

    __slots__ = ("_before",)

    # A generator takes three times as long, for each file
    def __enter__(self) -> list[str]:
        self._before = _current.texts
        texts: list[str] = []
        _current.texts = texts
        return texts

    def __exit__(self, *_: object) -> None:
        _current.texts = self._before


class _Routing:
    """Sends warnings to the thread that decodes, while any thread does; others' warnings go their usual way.

    `warnings.catch_warnings` changes the whole process, so the first thread enters it and the last one leaves it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._catch = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            _catch_libtiff()
            self._users += 1
            if self._users == 1:
                self._catch = warnings.catch_warnings()
                self._catch.__enter__()
                # By default Python shows a warning of the same text once only
                warnings.filterwarnings("always", module=r"PIL\b")
                warnings.showwarning = _redirect(warnings.showwarning)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._catch.__exit__(None, None, None)


# For `with routed:` around the decoding of many files
routed = _Routing()


def _redirect(show: Any) -> Any:
    """Return a replacement of `warnings.showwarning` that keeps what belongs to a file."""

    def keep(message: Warning | str, *rest: Any, **named: Any) -> None:
        if _current.texts is None:
            show(message, *rest, **named)
        else:
            note(str(message))

    return keep


@cache
def _catch_libtiff() -> tuple[Any, ...]:
    """Replace libtiff's handler of errors, once; return what must stay alive.

    Where Pillow contains libtiff instead of loading it, the handler cannot be reached and nothing changes.
    """
    from PIL import _imaging

    handler_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    try:
        libc, library = ctypes.CDLL(None), ctypes.CDLL(_imaging.__file__)
        set_handler, vsnprintf = library.TIFFSetErrorHandler, libc.vsnprintf
    except (OSError, AttributeError, TypeError):
        return ()

    def handle(module: int | None, pattern: int | None, arguments: int | None) -> None:
        text = ctypes.create_string_buffer(_MAX_TEXT)
        vsnprintf(text, _MAX_TEXT, ctypes.c_void_p(pattern), ctypes.c_void_p(arguments))
        where = ctypes.string_at(module).decode(errors="replace") if module else ""
        # Pillow calls every file so
        prefix = "" if where in ("", "tempfile.tif") else f"{where}: "
        message = f"libtiff: {prefix}{text.value.decode(errors='replace')}"
        if _current.texts is None:
            write_stderr(f"{one_line(message)}\n")
        else:
            note(message)

    kept = handler_type(handle)
    # Pillow silences libtiff's warnings, but not its errors
    set_handler(kept)
    return (kept, library, libc)
