"""The processes of trials as the server sees them: each is forked before its trial is known, and then waits for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterator

from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.template import BURY, FORK, SETTLE, stand
from runner.sweeps.workers import kill

FEW = 3  # forks in a row that may fail, or end before they can take a trial


class Lost(Exception):
    """The template is gone, with all its forks."""

    def __init__(self, code: int) -> None:
        self.code = code  # its exit code, or minus the number of the signal that killed it


class Forks:
    """A template and its forks: one that waits, those whose trials run, and those that have said that theirs is over.

    A fork and the end of one take as long as a short trial does. So the next process is there before it is asked for,
    and a trial is over when it says so, while its process still gives back its memory.
    """

    def __init__(self, message: Message, before: Callable[[], None]) -> None:
        """Start a template, which calls `before` and loads what the message says: `gpus` is known when it has."""
        self.gpus: int | None = None
        self._asked = False  # for one, which is not there yet
        self._waiting: tuple[int, Channel] | None = None
        self._running: dict[int, int] = {}  # pid -> number of the trial
        self._ending: set[int] = set()  # pids of those that have said that they are over
        self._over: deque[tuple[int, int]] = deque()
        self._stillborn = 0
        self._deaths, write = os.pipe()  # a byte for each process that ended, here and in the template
        for end in (self._deaths, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only its byte in the pipe counts
        self._said, said = socket.socketpair(type=socket.SOCK_DGRAM)
        requests, self._requests = os.pipe()
        server = os.getpid()
        self._template = os.fork()
        if self._template == 0:
            os.close(self._requests)
            self._said.close()
            before()
            become(server, message, requests, said)
        os.close(requests)
        said.close()
        self._said.setblocking(False)

    def descriptors(self) -> list[int]:
        """Return what to wait for: there is something to `hear` then."""
        return [self._said.fileno(), self._deaths]

    def begin(self, number: int, message: Message) -> int:
        """Give a trial to the process that waits, as soon as there is one, and return its pid; raises Lost."""
        while self._waiting is None:
            if not self._asked:  # the last one did not live
                self.ahead()
            select.select(self.descriptors(), [], [])
            self.hear()
        (pid, channel), self._waiting = self._waiting, None
        self._running[pid] = number
        with contextlib.suppress(Closed):  # it was killed, as will be heard
            channel.send(message)
        channel.close()
        self.ahead()
        return pid

    def hear(self) -> None:
        """Take note of what the processes have said, and of their deaths; raises Lost."""
        with contextlib.suppress(BlockingIOError):
            if os.read(self._deaths, 4096):
                pid, status = os.waitpid(self._template, os.WNOHANG)
                if pid:
                    raise Lost(os.waitstatus_to_exitcode(status))
                self._ask(BURY)
        with contextlib.suppress(BlockingIOError):
            while True:
                said, descriptors, _, _ = socket.recv_fds(self._said, 64, 1)
                word, fork, number = said.decode().split()
                self._note(word, int(fork), int(number), descriptors)

    def over(self) -> Iterator[tuple[int, int]]:
        """Yield number and exit code of the trials that are over, once each."""
        while self._over:
            yield self._over.popleft()

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to a trial and all that it started."""
        for pid, running in self._running.items():
            if running == number:
                kill(pid, sent)

    def ahead(self) -> None:
        """Have a process wait for its trial; each trial that begins sees to the next one."""
        self._asked = True
        self._ask(FORK)

    def settle(self) -> None:
        """Make forks cheap; it takes some time."""
        self._ask(SETTLE)

    def close(self) -> None:
        """End them all."""
        for pid in [*self._running, *self._ending, *([self._waiting[0]] if self._waiting else [])]:
            kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._template, signal.SIGKILL)

    def _note(self, word: str, pid: int, number: int, descriptors: list[int]) -> None:
        match word:
            case "loaded":
                self.gpus = number
            case "born":
                self._waiting = pid, Channel(socket.socket(fileno=descriptors[0]))
                self._asked, self._stillborn = False, 0
            case "over" if pid in self._running:
                kill(pid, signal.SIGKILL)  # what it has started itself ends with it
                self._over.append((self._running.pop(pid), number))
                self._ending.add(pid)
            case "dead" if pid in self._running:
                self._over.append((self._running.pop(pid), number))
            case "dead" if pid in self._ending:
                self._ending.discard(pid)
            case "dead":  # before it had a trial
                self._stillborn += 1
                if self._stillborn > FEW:
                    raise Lost(number)
                if self._waiting:
                    self._waiting[1].close()
                self._asked, self._waiting = False, None

    def _ask(self, request: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone, as will be heard
            os.write(self._requests, request)


def become(server: int, message: Message, requests: int, said: socket.socket) -> None:
    """Be the template, in its own process, and end."""
    try:
        stand(server, message, requests, said)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
