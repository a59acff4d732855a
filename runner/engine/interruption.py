"""SIGINT and SIGTERM: raised immediately where no work is lost, else noted for the training loop, which saves first.

A second signal gets the system's default action, which ends the process immediately.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from runner.engine.world import ALONE, World

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal ended the work. The text is the signal's name, `exit_code` is 128 plus its number, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Stop:
    """A request to end the work, by the number of a signal; 0 means none.

    `signal` is what this process received and may change at any time. `agreed` is what all processes of the run know
    since the last `agree`: decisions that all must make alike (to end after this step) follow it.
    """

    __slots__ = ("agreed", "signal", "world")

    def __init__(self, signal: int = 0, world: World = ALONE) -> None:
        self.signal, self.world, self.agreed = signal, world, 0

    def agree(self) -> int:
        """Return the signal that any process received; all processes call this at the same place."""
        self.agreed = self.world.max(self.signal)
        return self.agreed


# For work that no signal stops.
NEVER = Stop()
# The signal that `raising` raised last.
_raised = Stop()


@contextmanager
def raising() -> Iterator[None]:
    """Raise Interrupted in the main thread when the first signal arrives.

    A library may swallow the exception, for example by a bare `except` around an import. Then `heed` or the next
    `deferred` raises it again, and so does any error that follows from it: an interrupted import of numpy cannot be
    repeated in the same process.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        _restore_defaults()
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
    """Raise Interrupted again if a library swallowed it."""
    if _raised.signal:
        raise Interrupted(_raised.signal)


@contextmanager
def deferred(world: World = ALONE) -> Iterator[Stop]:
    """Note the first signal for the body to read, and raise Interrupted after the body if any process received one."""
    stop = Stop(_raised.signal, world)

    def handle(number: int, frame: FrameType | None) -> None:
        _restore_defaults()
        stop.signal = number

    with handled(handle):
        yield stop
    if number := stop.signal or stop.agreed:
        raise Interrupted(number)


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collect the numbers of the signals that ask for an end, SIGHUP too, in a list while the body runs.

    A sweep reads the list: the first signal lets its trials save themselves, the second one ends them at once.
    """
    received = [_raised.signal] if _raised.signal else []
    with handled(lambda number, frame: received.append(number), (*_SIGNALS, signal.SIGHUP)):
        yield received


@contextmanager
def handled(handler: _Handler, signals: Sequence[signal.Signals] = _SIGNALS) -> Iterator[None]:
    """Install a handler for the body and restore the earlier ones afterwards.

    Only the main thread can install handlers; in other threads nothing changes. An ignored signal stays ignored:
    shells start background jobs with SIGINT ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in signals}
    before = {number: old for number, old in found.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _restore_defaults() -> None:
    """Let the next signal have its default action."""
    for number in _SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, signal.SIG_DFL)
