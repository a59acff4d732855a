"""Print text to standard output and standard error: it may come from users' files, and printing never fails.

Control characters would change the terminal or hide text, so they are printed as escapes. Everything that this package
prints goes through these functions or through `runner.rich_console`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from runner.errors import StorageError, escaped
from runner.streams import Screen, lost_output, open_screen

# Lines and columns of a text are its own
_LAYOUT = str.maketrans("", "", "\n\t")


def standard_output() -> TextIO:
    """Return standard output, as a stream whose writes never fail."""
    return _safe(sys.stdout)


def standard_error() -> TextIO:
    """Return standard error, as a stream whose writes never fail."""
    return _safe(sys.stderr)


def _safe(stream: Any) -> TextIO:
    return stream if isinstance(stream, Screen) else cast("TextIO", _Tolerant(stream))


def write_stdout(text: str) -> None:
    """Write a text to standard output; control characters but line breaks and tabs are escaped."""
    write_to(standard_output(), text)


def write_stderr(text: str) -> None:
    """Write a text to standard error; control characters but line breaks and tabs are escaped."""
    write_to(standard_error(), text)


def write_to(stream: TextIO, text: str) -> None:
    """Write a text to a stream at once; control characters but line breaks and tabs are escaped."""
    stream.write(visible(text))
    stream.flush()


def visible(text: str) -> str:
    """Return a text in which all control characters but line breaks and tabs are escaped."""
    if text.translate(_LAYOUT).isprintable():
        return text
    return "".join(each if each in "\n\t" else escaped(each) for each in text)


def counted(count: float, noun: str) -> str:
    """Return a number with what it counts: `1 run`, `2 runs`, `0.5 epochs`."""
    return (
        f"{count:.4g} {noun}{'s' * (count != 1)}" if isinstance(count, float) else f"{count} {noun}{'s' * (count != 1)}"
    )


def size_in_words(count: float) -> str:
    """Return a number of bytes in words, in powers of ten as disks count: `1.2 GB`."""
    size, units = float(count), ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and units:
        size, units = size / 1000, units[1:]
    unit = units[0] if units else "TB"
    return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def check_printed() -> None:
    """Raise StorageError if standard output lost something, for an answer that is nowhere else.

    A reader that closes its pipe early (`| head`) has what it wanted.
    """
    if problem := lost_output():
        raise StorageError(problem)


def in_notebook(stream: Any) -> bool:
    """Return True if a stream is shown in a notebook: a page, which is no terminal, but can replace a line."""
    kinds = type(getattr(stream, "_stream", stream)).__mro__
    return any(kind.__module__ == "ipykernel.iostream" for kind in kinds)


@contextmanager
def printing_to(descriptor: int) -> Iterator[None]:
    """Write what is printed in the body to an open file, as far as its disk allows, and close it."""
    screen = open_screen(descriptor)
    try:
        with redirect_stdout(screen), redirect_stderr(screen):
            yield
    finally:
        screen.flush()
        os.close(descriptor)


class _Tolerant:
    """A stream of a notebook or a plugin whose errors do not matter; all but writing is its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        with suppress(Exception):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered if that is possible."""
        with suppress(Exception):
            self._stream.flush()

    def isatty(self) -> bool:
        """Return True if the stream is a terminal."""
        with suppress(Exception):
            return bool(self._stream.isatty())
        return False
