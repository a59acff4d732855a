"""Signals: raised immediately where no work is lost, else noted for the training loop, which saves first.

A second SIGINT or SIGTERM gets the system's default action, which ends the process immediately. No other module
installs handlers or changes the mask: a signal that was ignored or blocked when the process started stays so.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from runner.engine.world import ALONE, World

# For `handled`: while a process waits for others in native code, no handler of Python would run
DEFAULT = signal.SIG_DFL
# The signals that ask a process to end
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Signals that this process or the one it was forked from ignores by its own choice (`ignore`)
_own_choice: set[int] = set()
_Handler = Callable[[int, FrameType | None], None]
# What a second signal does, where it is not the system's default
_next: dict[int, signal.Handlers | _Handler] = {}


class Interrupted(KeyboardInterrupt):
    """A signal ended the work. The text is the signal's name, `exit_code` is 128 plus its number, as in shells."""

    folder: Path | None = None  # of the run or sweep; the Python API sets it

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Stop:
    """A request to end the work, by the number of a signal; 0 means none.

    `signal` is what this process received and may change at any time. `agreed` (to end after this step) and `save` (a
    checkpoint of it) are what all processes of the run know since the last `agree`: they decide alike by them.
    """

    __slots__ = ("agreed", "save", "signal", "world")

    def __init__(self, signal: int = 0, world: World = ALONE) -> None:
        self.signal, self.world, self.agreed, self.save = signal, world, 0, False

    def agree(self, save: bool = False) -> int:
        """Return the signal that any process received; all processes call this at the same place."""
        # One exchange for both answers: a signal, 0 for a checkpoint alone, or -1 for neither
        found = self.world.max(self.signal or (0 if save else -1))
        self.agreed, self.save = max(0, found), found >= 0
        return self.agreed


NEVER = Stop()  # for work that no signal stops
_raised = Stop()  # the signal that `raising` raised last


@contextmanager
def raising() -> Iterator[None]:
    """Raise Interrupted in the main thread when the first signal arrives.

    A library may swallow the exception, as by a bare `except` around an import. Then `heed` or the next `deferred`
    raises it again, and so does any error that follows from it: numpy cannot be imported again after that.
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
    """Collect the numbers of the signals that ask for an end in a list while the body runs.

    A sweep reads the list: the first signal lets its trials save themselves, the second one ends them at once.
    """
    received = [_raised.signal] if _raised.signal else []

    def collect(number: int, frame: FrameType | None) -> None:
        # Both the kernel and the shell send SIGHUP when a terminal closes
        if number != signal.SIGHUP or number not in received:
            received.append(number)

    with handled(collect):
        yield received


@contextmanager
def handled(handler: _Handler | signal.Handlers, signals: Sequence[signal.Signals] = STOPPING) -> Iterator[None]:
    """Install a handler for the body and restore the earlier ones afterwards.

    Only the main thread can install handlers; in other threads nothing changes. An ignored signal stays ignored:
    shells start background jobs with SIGINT ignored.
    """
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in signals if here and not _is_ignored(number)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ignore(*numbers: signal.Signals) -> None:
    """Ignore signals by this process's own choice; `take_defaults` in a forked process takes it back."""
    for number in numbers:
        if not _is_ignored(number):
            _own_choice.add(number)
        # Also where Python knows it as ignored: native code may have installed a handler
        signal.signal(number, signal.SIG_IGN)


def take_defaults(*numbers: signal.Signals) -> None:
    """Give signals the handlers that a new process has, except those that were ignored when runner started."""
    for number in numbers:
        if not _is_ignored(number) or number in _own_choice:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
            _own_choice.discard(number)


def stop_signal() -> signal.Signals:
    """Return the signal that stops a process started by this one: SIGTERM, or SIGINT where SIGTERM cannot arrive."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    able = (number for number in (signal.SIGTERM, signal.SIGINT) if not _is_ignored(number) and number not in blocked)
    return next(able, signal.SIGTERM)


def watch_children(wakeup: int | None = None) -> None:
    """Let this process learn that a child ended, even if it was started with SIGCHLD ignored or blocked.

    Else no exit code of a child is known. With `wakeup`, each signal writes a byte to this descriptor.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if wakeup is not None:
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        # The handler does nothing; the byte is what counts
        signal.signal(signal.SIGCHLD, lambda *_: None)
    elif signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def forget_children() -> None:
    """Undo `watch_children` in a forked process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def same_mask() -> Iterator[None]:
    """Restore the mask of blocked signals after the body.

    Python's resource tracker, which worker processes need, unblocks SIGINT and SIGTERM when it starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Keep signals from this process, and from those that it starts in the body, until the body ends."""
    with same_mask():
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield


def end_by(number: int) -> None:
    """End this process by a signal, so that its parent sees it; return if the signal does not end processes."""
    # Nobody can install a handler for SIGKILL, and nobody needs to
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)


def _is_ignored(number: signal.Signals) -> bool:
    """Return True if a signal is ignored, or has a handler that is not Python's."""
    return signal.getsignal(number) in (signal.SIG_IGN, None)


def ignore_repeats() -> None:
    """Let a second signal do nothing in this process: whoever started it kills it if it does not end.

    Schedulers send SIGTERM to all processes of a job, and a sweep then sends it to its trials again.
    """
    _next.update(dict.fromkeys(STOPPING, signal.SIG_IGN))


@contextmanager
def repeats_raise() -> Iterator[None]:
    """Let a second SIGINT raise KeyboardInterrupt in the body: it must not end the process of a notebook."""
    _next[signal.SIGINT] = signal.default_int_handler
    try:
        yield
    finally:
        del _next[signal.SIGINT]


def _restore_defaults() -> None:
    """Let the next signal have its default action; ignore a second SIGHUP, which belongs to the first one."""
    for number in STOPPING:
        if not _is_ignored(number):
            signal.signal(number, _next.get(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL))
