"""Standard output and standard error that never end a run: what cannot be written is dropped.

A reader may close its pipe (`| head`), a terminal may close, a disk may be full, and a shell may start a program
without standard streams (`>&-`). The work goes on in all cases: its results are in files. Characters that the encoding
of a stream lacks are written as escapes.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

from runner.errors import StorageError

_STANDARD = (0, 1, 2)


class _Raw(io.FileIO):
    """A file descriptor whose writes never fail; the first error is kept in `lost`."""

    lost: OSError | None = None

    def write(self, data: object, /) -> int:
        """Write bytes and return their number; drop them after the first error."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        while self.lost is None:
            try:
                written = super().write(view)
            except OSError as error:
                self.lost = error
            else:
                if written is not None:
                    return written
                # The terminal's owner made it non-blocking: wait for room, as a blocking stream does
                select.select([], [self], [])
        return len(view)


class _Screen(io.TextIOWrapper):
    """A text stream over a descriptor whose writes never fail."""

    def __init__(self, descriptor: int, *, encoding: str, line_buffering: bool) -> None:
        self.descriptor = _Raw(descriptor, "w", closefd=False)
        super().__init__(
            io.BufferedWriter(self.descriptor),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=line_buffering,
        )


def guard() -> None:
    """Replace this process's standard output and standard error by streams whose writes never fail.

    Streams that are no files, as in a notebook, stay. Does nothing the second time.
    """
    _open_missing()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is None or (type(old) is io.TextIOWrapper and _descriptor(old) == descriptor):
            setattr(sys, name, open_screen(descriptor, old))


def open_screen(descriptor: int, like: TextIO | None = None) -> TextIO:
    """Return a text stream over a descriptor whose writes never fail; encoding and buffering are those of `like`."""
    if like is not None:
        with suppress(OSError, ValueError):
            like.flush()
    screen = _Screen(
        descriptor,
        encoding=getattr(like, "encoding", None) or "utf-8",
        line_buffering=descriptor == 2 or bool(getattr(like, "line_buffering", False)),
    )
    # An interpreter started with -u writes every text immediately
    if getattr(like, "write_through", False):
        screen.reconfigure(write_through=True)
    return screen


def check_printed() -> None:
    """Raise StorageError if standard output lost something, for an answer that is nowhere else.

    A reader that closes its pipe early (`| head`) has what it wanted.
    """
    if problem := lost_output():
        raise StorageError(problem)


def lost_output() -> str | None:
    """Return in words why standard output could not be written; None if it was, or if a reader closed its pipe."""
    sys.stdout.flush()
    lost = sys.stdout.descriptor.lost if isinstance(sys.stdout, _Screen) else None
    return None if lost is None or lost.errno == errno.EPIPE else f"standard output: cannot write ({lost.strerror})"


def _open_missing() -> None:
    """Open the null device for each standard descriptor that is closed: the next file would take its number."""
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)


def _descriptor(stream: TextIO) -> int | None:
    """Return the descriptor of a stream, None if it has none."""
    with suppress(OSError, ValueError):
        return stream.fileno()
    return None
