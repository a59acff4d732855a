"""The forked processes of trials, as the server sees them: each is forked in advance and waits for its trial."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator

from runner.status import print_error
from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.template import COLLAPSE_MEMORY, FORK, REAP, serve_forks
from runner.sweeps.worker_group import kill

# Forks in a row that may fail or end before they get a trial
_MAX_EARLY_DEATHS = 3


class TemplateEnded(Exception):
    """The template process ended, and all its forks with it."""

    def __init__(self, code: int) -> None:
        # Exit code, or minus the number of the signal that killed the template
        self.code = code


class Forks:
    """A template process and its forks: one that waits, those that run a trial, and those that end.

    To fork a process, and to end one, takes as long as a short trial. The next process is therefore forked ahead, and
    a trial has ended when its process reports so, while that process still frees its memory.
    """

    def __init__(self, message: Message, before: Callable[[], None]) -> None:
        """Start a template, which calls `before` and loads what the message names; until then `gpus` is None."""
        self.gpus: int | None = None
        # True while a requested fork does not exist yet
        self._requested = False
        self._waiting: tuple[int, Channel] | None = None
        # pid -> number of the trial
        self._running: dict[int, int] = {}
        # pids of processes whose trial has ended
        self._ending: set[int] = set()
        self._ended: deque[tuple[int, int]] = deque()
        self._early_deaths = 0
        # Receives a byte for each process that ended, here and in the template
        self._deaths, write = os.pipe()
        for end in (self._deaths, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        # The handler does nothing; the byte in the pipe is what counts
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._messages, messages = socket.socketpair(type=socket.SOCK_DGRAM)
        requests, self._requests = os.pipe()
        server = os.getpid()
        self._template = os.fork()
        if self._template == 0:
            os.close(self._requests)
            self._messages.close()
            before()
            _run_template(server, message, requests, messages)
        os.close(requests)
        messages.close()
        self._messages.setblocking(False)

    def descriptors(self) -> list[int]:
        """Return the descriptors to wait for: when one is readable, call `read_messages`."""
        return [self._messages.fileno(), self._deaths]

    def start_trial(self, number: int, message: Message) -> int:
        """Give a trial to a waiting process, wait for one if necessary, and return its pid; raises Lost."""
        while self._waiting is None:
            # The previous fork ended before it could wait
            if not self._requested:
                self.fork_ahead()
            select.select(self.descriptors(), [], [])
            self.read_messages()
        (pid, channel), self._waiting = self._waiting, None
        self._running[pid] = number
        # The process was killed; `read_messages` handles that
        with contextlib.suppress(Closed):
            channel.send(message)
        channel.close()
        self.fork_ahead()
        return pid

    def read_messages(self) -> None:
        """Read the messages of the processes, and notice those that ended; raises Lost."""
        with contextlib.suppress(BlockingIOError):
            if os.read(self._deaths, 4096):
                pid, status = os.waitpid(self._template, os.WNOHANG)
                if pid:
                    raise TemplateEnded(os.waitstatus_to_exitcode(status))
                self._request(REAP)
        with contextlib.suppress(BlockingIOError):
            while True:
                messages, descriptors, _, _ = socket.recv_fds(self._messages, 64, 1)
                word, fork, number = messages.decode().split()
                self._handle(word, int(fork), int(number), descriptors)

    def ended(self) -> Iterator[tuple[int, int]]:
        """Yield number and exit code of each trial that ended, once."""
        while self._ended:
            yield self._ended.popleft()

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to a trial and all processes that it started."""
        for pid, running in self._running.items():
            if running == number:
                kill(pid, sent)

    def fork_ahead(self) -> None:
        """Request a fork that waits for a trial; each trial that starts requests the next one."""
        self._requested = True
        self._request(FORK)

    def collapse_memory(self) -> None:
        """Have the template put its memory into large pages, which takes some time and makes forks faster."""
        self._request(COLLAPSE_MEMORY)

    def close(self) -> None:
        """Kill all processes."""
        for pid in [*self._running, *self._ending, *([self._waiting[0]] if self._waiting else [])]:
            kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._template, signal.SIGKILL)
        self._messages.close()
        if self._waiting:
            self._waiting[1].close()

    def _handle(self, word: str, pid: int, number: int, descriptors: list[int]) -> None:
        match word:
            case "loaded":
                self.gpus = number
            case "waiting":
                self._waiting = pid, Channel(socket.socket(fileno=descriptors[0]))
                self._requested, self._early_deaths = False, 0
            case "ended" if pid in self._running:
                # Also kills the processes that the trial started
                kill(pid, signal.SIGKILL)
                self._ended.append((self._running.pop(pid), number))
                self._ending.add(pid)
            case "dead" if pid in self._running:
                self._ended.append((self._running.pop(pid), number))
            case "dead" if pid in self._ending:
                self._ending.discard(pid)
            case "dead":
                # The fork ended before it got a trial
                self._early_deaths += 1
                if self._early_deaths > _MAX_EARLY_DEATHS:
                    raise TemplateEnded(number)
                if self._waiting:
                    self._waiting[1].close()
                self._requested, self._waiting = False, None

    def _request(self, request: bytes) -> None:
        # The template ended; `read_messages` handles that
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, request)


def _run_template(server: int, message: Message, requests: int, messages: socket.socket) -> None:
    """Run the template in its own process, and end the process."""
    try:
        serve_forks(server, message, requests, messages)
        os._exit(0)
    except BaseException as error:
        print_error(error)
    finally:
        os._exit(1)
