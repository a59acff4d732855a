"""Signals that ask the process to end: raised at once where nothing is lost by that, kept for the loop where it is.

The second signal finds the system's own action, which ends the process at once, whatever it does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work; its text is the signal's name, `exit_code` what shells show for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass(slots=True)
class Stop:
    """Whether the work is to end: `signal` is the number of the signal that asks for it, 0 while there was none."""

    signal: int = 0


NEVER = Stop()  # where nobody asks
_raised = Stop()  # what `raising` has raised


@contextmanager
def raising() -> Iterator[None]:
    """Raise Interrupted wherever the main thread is when the first signal comes.

    Libraries may swallow it, by a bare `except` round an import, say: then `heed` or the next `deferred` raises it, or
    whatever error comes of it: numpy's import that was broken off cannot be repeated.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        give_up()
        _raised.signal = number
        raise Interrupted(number)

    _raised.signal = 0
    try:
        with handled(handle):
            yield
    except Exception as error:
        if _raised.signal:
            raise Interrupted(_raised.signal) from error
        raise
    finally:
        _raised.signal = 0


def heed() -> None:
    """Raise Interrupted again if there was a signal that a library swallowed."""
    if _raised.signal:
        raise Interrupted(_raised.signal)


@contextmanager
def deferred() -> Iterator[Stop]:
    """Note the first signal for the body to look at, and raise Interrupted at its end if there was one."""
    stop = Stop(_raised.signal)

    def handle(number: int, frame: FrameType | None) -> None:
        give_up()
        stop.signal = number

    with handled(handle):
        yield stop
    if stop.signal:
        raise Interrupted(stop.signal)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Have a handler called while the body runs, and afterwards what was there before.

    Only the main thread can do so; elsewhere nothing changes. A signal that is ignored stays so: shells have jobs in
    the background ignore SIGINT.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: old for number, old in found.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def give_up() -> None:
    """Leave the next signal to the system."""
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, signal.SIG_DFL)
