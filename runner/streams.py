"""Standard output and standard error that never end a run: what cannot be written is dropped.

A reader may close its pipe (`| head`), a terminal may close, a disk may be full, and a shell may start a program
without standard streams (`>&-`). The work goes on in all cases: its results are in files. Characters that the encoding
of a stream lacks are written as escapes.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from runner.errors import escaped

_STANDARD = (0, 1, 2)
_NAMES = {1: "stdout", 2: "stderr"}
# What stands for characters that an encoding lacks; all others are escaped
_READABLE = {"\u00b1": "+-", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2020": "*", "\u2026": "..."}


class _Raw(io.RawIOBase):
    """A file descriptor whose writes never fail; the first error is kept in `lost`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.lost: OSError | None = None
        # As a file has them
        self.name, self.mode = f"<{_NAMES.get(descriptor, descriptor)}>", "wb"

    def write(self, data: Any, /) -> int:
        """Write bytes and return their number; drop them after an error."""
        view = memoryview(data).cast("B")
        try:
            return self._write_when_possible(view)
        except OSError as error:
            self.lost = self.lost or error
        except ValueError:
            # The number of the descriptor is beyond what `select` takes
            self.lost = self.lost or OSError(errno.EBADF, os.strerror(errno.EBADF))
        return len(view)

    def _write_when_possible(self, view: memoryview) -> int:
        # Someone closed the descriptor and a file took its number: standard streams are inherited, files are not
        if self._descriptor in _STANDARD and not os.get_inheritable(self._descriptor):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        while True:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:
                # The terminal's owner made it non-blocking: wait for room, as a blocking stream does
                select.select([], [self._descriptor], [])

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return True if the descriptor is a terminal."""
        return os.isatty(self._descriptor)


class Screen(io.TextIOWrapper):
    """A text stream over a descriptor whose writes never fail, and which stays open."""

    def __init__(self, descriptor: int, *, encoding: str, line_buffering: bool) -> None:
        self.descriptor = _Raw(descriptor)
        super().__init__(
            io.BufferedWriter(self.descriptor), encoding=encoding, errors=_ERRORS, line_buffering=line_buffering
        )

    def close(self) -> None:
        """Write out what is buffered: code that closes its standard output does not end the run."""
        with suppress(ValueError):
            self.flush()

    def detach(self) -> Any:
        """Return another buffer over the descriptor, and stay usable."""
        self.flush()
        return io.BufferedWriter(_Raw(self.descriptor.fileno()))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that an encoding lacks, as a handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = (_READABLE.get(each) or _escape(each) for each in error.object[error.start : error.end])
    return "".join(shown), error.end


def _escape(character: str) -> str:
    """Return the escape of a character, in ASCII."""
    return character.encode("ascii", "backslashreplace").decode() if character.isprintable() else escaped(character)


_ERRORS = "runner.readable"
codecs.register_error(_ERRORS, _escape_unencodable)
# The streams of this process by descriptor, once they are guarded
_screens: dict[int, Screen] = {}


def guard() -> None:
    """Replace this process's standard output and standard error by streams whose writes never fail.

    Streams that are no files, as in a notebook, stay. Does nothing the second time.
    """
    _open_missing()
    for descriptor, name in _NAMES.items():
        old = getattr(sys, name)
        if old is None or (type(old) is io.TextIOWrapper and _descriptor(old) == descriptor):
            screen = _screens[descriptor] = open_screen(descriptor, old)
            setattr(sys, name, screen)
            # Libraries may keep the interpreter's own stream
            setattr(sys, f"__{name}__", screen)


def restore() -> None:
    """Make the guarded streams the standard streams again: those of a plugin may fail when the interpreter ends."""
    for descriptor, screen in _screens.items():
        name = _NAMES[descriptor]
        with suppress(Exception):
            getattr(sys, name).flush()
        setattr(sys, name, screen)


def redirect(descriptor: int) -> None:
    """Make a descriptor the standard output and standard error of this process, that of native code too."""
    for number, name in _NAMES.items():
        with suppress(Exception):
            getattr(sys, name).flush()
        os.dup2(descriptor, number)
    for number, name in _NAMES.items():
        _screens[number] = open_screen(number)
        setattr(sys, name, _screens[number])


def open_screen(descriptor: int, like: TextIO | None = None) -> Screen:
    """Return a text stream over a descriptor whose writes never fail; encoding and buffering are those of `like`."""
    if like is not None:
        with suppress(OSError, ValueError):
            like.flush()
    screen = Screen(
        descriptor,
        encoding=getattr(like, "encoding", None) or "utf-8",
        line_buffering=descriptor == 2 or bool(getattr(like, "line_buffering", False)),
    )
    # An interpreter started with -u writes every text immediately
    if getattr(like, "write_through", False):
        screen.reconfigure(write_through=True)
    return screen


def encodable(text: str, encoding: str) -> str:
    """Return a text with escapes for the characters that an encoding lacks."""
    return text if text.isascii() else text.encode(encoding, _ERRORS).decode(encoding)


def lost_output() -> str | None:
    """Return in words why standard output could not be written; None if it was, or if a reader closed its pipe."""
    screen = _screens.get(1)
    if screen is None:
        return None
    screen.flush()
    lost = screen.descriptor.lost
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
            else:
                os.set_inheritable(null, True)


def _descriptor(stream: TextIO) -> int | None:
    """Return the descriptor of a stream, None if it has none."""
    with suppress(OSError, ValueError):
        return stream.fileno()
    return None


def silence() -> Callable[[], None]:
    """Let this process print nothing; return the function that lets it print errors again."""
    shown = sys.stderr
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    sys.stderr = open_screen(null)

    def speak() -> None:
        sys.stderr = shown

    return speak


def flush_streams() -> None:
    """Write out what the standard streams hold."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
