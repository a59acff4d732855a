"""The forked processes of trials, as the server sees them: each is forked in advance and waits for its trial."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runner.engine import processes
from runner.engine.interruption import watch_children
from runner.status import print_error
from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.template import COLLAPSE_MEMORY, FORK, PING, REAP, serve_forks

# Forks in a row that may fail or end before they get a trial
_MAX_EARLY_DEATHS = 3
_MESSAGE = re.compile(rb"(?P<word>[a-z]+) (?P<pid>[0-9]{1,10}) (?P<number>-?[0-9]{1,18})")


class TemplateEnded(Exception):
    """The template process ended, and all its forks with it."""

    def __init__(self, code: int) -> None:
        # Exit code, or minus the number of the signal that killed the template
        self.code = code


@dataclass
class _Fork:
    """A process that runs a trial; the channel is None once it sent anything else than how its trial ended."""

    number: int
    channel: Channel | None


class Forks:
    """A template process and its forks: one that waits, those that run a trial, and those that end.

    To fork a process, and to end one, takes as long as a short trial. The next process is therefore forked ahead, and
    a trial has ended when its process reports so, while that process still frees its memory.
    """

    def __init__(self, message: Message, before: Callable[[], None]) -> None:
        """Start a template, which calls `before` and loads what the message names; until then `gpus` is None."""
        self.gpus: int | None = None
        # Of the runs that are asked for, two numbers each
        self.sizes: list[int] = []
        # True while a requested fork does not exist yet
        self._requested = False
        self._waiting: tuple[int, Channel] | None = None
        # Trials without a process
        self._queue: deque[tuple[int, Message]] = deque()
        self._running: dict[int, _Fork] = {}  # by pid
        # pids of processes whose trial has ended
        self._ending: set[int] = set()
        self._events: deque[Message] = deque()
        self._early_deaths = 0
        # Receives a byte for each process that ended, here and in the template
        self._deaths, write = os.pipe()
        for end in (self._deaths, write):
            os.set_blocking(end, False)
        watch_children(write)
        self._messages, messages = socket.socketpair(type=socket.SOCK_DGRAM)
        requests, self._requests = os.pipe()
        server = os.getpid()
        # 0 when it has ended
        self._template = os.fork()
        if self._template == 0:
            os.close(self._requests)
            self._messages.close()
            before()
            _run_template(server, message, requests, messages, [self._deaths, write])
        os.close(requests)
        messages.close()
        self._messages.setblocking(False)

    def descriptors(self) -> list[int]:
        """Return the descriptors to wait for: when one is readable, call `read_messages`."""
        channels = [each.channel.fileno() for each in self._running.values() if each.channel]
        return [self._messages.fileno(), self._deaths, *channels]

    def start_trial(self, number: int, message: Message) -> None:
        """Give a trial to a waiting process, now or when there is one."""
        self._queue.append((number, message))
        self._assign()

    def read_messages(self) -> None:
        """Read the messages of the processes, and notice those that ended; raises TemplateEnded."""
        for pid in list(self._running):
            self._read_trial(pid)
        with contextlib.suppress(BlockingIOError):
            if os.read(self._deaths, 4096):
                pid, status = os.waitpid(self._template, os.WNOHANG)
                if pid:
                    self._template = 0
                    raise TemplateEnded(os.waitstatus_to_exitcode(status))
                self._request(REAP)
        with contextlib.suppress(BlockingIOError):
            while True:
                content, descriptors, _, _ = socket.recv_fds(self._messages, 64, 1)
                self._handle(content, descriptors)
        self._assign()

    def events(self) -> Iterator[Message]:
        """Yield what happened, once: trials that started, with their pid, and that ended, with their exit code."""
        while self._events:
            yield self._events.popleft()

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to a trial and all processes of its group; a trial without a process ends."""
        for each in [each for each in self._queue if each[0] == number]:
            self._queue.remove(each)
            self._events.append({"did": "end", "number": number, "code": -sent})
        for pid, fork in self._running.items():
            if fork.number == number:
                processes.kill_group(pid, sent)

    def fork_ahead(self) -> None:
        """Request a fork that waits for a trial; each trial that starts requests the next one."""
        self._requested = True
        self._request(FORK)

    def collapse_memory(self) -> None:
        """Have the template put its memory into large pages, which takes some time and makes forks faster."""
        self._request(COLLAPSE_MEMORY)

    def ping(self) -> None:
        """Have the template answer, which is an event; while it loads, it has until then."""
        if self.gpus is not None:
            self._request(PING)
        elif processes.state(self._template) != "T":
            self._events.append({"did": "answer"})

    def close(self) -> None:
        """Kill all processes, and what trials started."""
        for pid in [*self._running, *self._ending, *([self._waiting[0]] if self._waiting else [])]:
            processes.kill_group(pid, signal.SIGKILL)
        if self._template:
            os.kill(self._template, signal.SIGKILL)
        self._messages.close()
        processes.end_descendants()

    def _assign(self) -> None:
        """Give trials to waiting processes, of which there is one at a time."""
        while self._queue and self._waiting:
            (pid, channel), self._waiting = self._waiting, None
            number, message = self._queue.popleft()
            self._running[pid] = _Fork(number, channel)
            self._events.append({"did": "start", "number": number, "pid": pid})
            # The process was killed; `read_messages` handles that
            with contextlib.suppress(Closed):
                channel.send(message)
            self.fork_ahead()
        # The previous fork ended before it could wait
        if self._queue and not self._requested and self.gpus is not None:
            self.fork_ahead()

    def _read_trial(self, pid: int) -> None:
        """Read how a trial ended, if its process says so; after anything else, the end of the process tells it."""
        channel = self._running[pid].channel
        if channel is None or not select.select([channel], [], [], 0)[0]:
            return
        try:
            codes = [message["code"] for message in channel.receive()]
        except (Closed, KeyError):
            codes = [None]
        if codes and codes[0] in range(256):
            # Also kills the processes that the trial started
            processes.kill_group(pid, signal.SIGKILL)
            self._end(pid, codes[0])
            self._ending.add(pid)
        elif codes:
            channel.close()
            self._running[pid].channel = None

    def _end(self, pid: int, code: int) -> None:
        """Record that a trial ended."""
        fork = self._running.pop(pid)
        if fork.channel:
            fork.channel.close()
        self._events.append({"did": "end", "number": fork.number, "code": code})

    def _handle(self, content: bytes, descriptors: list[int]) -> None:
        """Handle a message of the template; a plugin that it imported may have sent anything."""
        match = _MESSAGE.fullmatch(content)
        pid, number = (int(match["pid"]), int(match["number"])) if match else (0, 0)
        match match and match["word"]:
            case b"loaded":
                self.gpus = number
            case b"size":
                self.sizes.append(number)
            case b"alive":
                self._events.append({"did": "answer"})
            case b"waiting" if descriptors:
                self._waiting = pid, Channel(socket.socket(fileno=descriptors.pop()))
                self._requested, self._early_deaths = False, 0
            case b"dead":
                self._dead(pid, number)
        for descriptor in descriptors:
            os.close(descriptor)

    def _dead(self, pid: int, code: int) -> None:
        """Record that a fork ended."""
        if pid in self._running:
            self._end(pid, code)
        elif pid in self._ending:
            self._ending.discard(pid)
        else:
            # The fork ended before it got a trial
            self._early_deaths += 1
            if self._early_deaths > _MAX_EARLY_DEATHS:
                raise TemplateEnded(code)
            if self._waiting:
                self._waiting[1].close()
            self._requested, self._waiting = False, None

    def _request(self, request: bytes) -> None:
        # The template ended; `read_messages` handles that
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, request)


def _run_template(server: int, message: Message, requests: int, messages: socket.socket, private: list[int]) -> None:
    """Run the template in its own process, and end the process."""
    try:
        serve_forks(server, message, requests, messages, private)
        os._exit(0)
    except BaseException as error:
        print_error(error)
    finally:
        os._exit(1)
