"""The processes of a sweep as the sweep sees them: started, told what to run, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from runner.sweeps.channel import Channel, Closed, Message

START = (
    "import ast, sys; sys.path[:] = ast.literal_eval(sys.argv[1]); "
    "from runner.sweeps.server import main; main(int(sys.argv[2]))"
)
# Memory that malloc takes comes in large pages where it can: a third less for each fork to copy, for nothing.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
PATIENCE = 5.0  # seconds for a process to end by itself, once its channel is closed


class Worker:
    """A process that trials are sent to: a fork server, which has several at once, or one of a GPU, which has one.

    It lives until `close`, and not longer than this process: it ends with the channel between them.
    """

    def __init__(self, *, seats: int, inline: bool, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.seats, self.inline, self._environment = seats, inline, dict(environment or {})
        self.groups: dict[int, int] = {}  # number of a trial -> its process group
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, repr([path or os.getcwd() for path in sys.path]), str(theirs.fileno())],  # noqa: PTH109
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**LARGE_PAGES, **os.environ, **self._environment},
            start_new_session=True,  # the terminal's Ctrl-C is for the sweep, which then says what is to end
        )
        theirs.close()
        self._channel = Channel(ours)

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._channel.fileno()

    def load(self, **message: Any) -> None:
        """Have it import and read what trials need; it answers with the number of GPUs."""
        self._channel.send({"do": "load", "argv": sys.argv, "inline": self.inline, **message})

    def run(self, number: int, message: Message) -> None:
        """Have it run a trial."""
        self._channel.send({"do": "run", "number": number, **message})

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to a trial and all that it started."""
        if self.inline:
            kill(self._process.pid, sent)  # ours until it is waited for, so the number is no other's
        else:
            with contextlib.suppress(Closed):
                self._channel.send({"do": "kill", "number": number, "signal": int(sent)})

    def receive(self) -> Iterator[Message]:
        """Yield what it says; raises Closed once it is gone."""
        for message in self._channel.receive():
            if message["did"] == "start":
                self.groups[message["number"]] = message["pid"]
            elif message["did"] == "end":
                self.groups.pop(message["number"], None)
            yield message

    def successor(self) -> Worker:
        """Return a new process like this one."""
        return Worker(seats=self.seats, inline=self.inline, environment=self._environment)

    def close(self) -> int:
        """End it and whatever it runs; return its exit code, or minus the signal's number."""
        self._channel.close()
        try:  # a fork server with trials ends them, and itself
            return self._process.wait(PATIENCE if self.groups and not self.inline else 0)
        except subprocess.TimeoutExpired:
            kill(self._process.pid, signal.SIGKILL)
            return self._process.wait()
        finally:
            for group in self.groups.values():  # of a server that was killed
                kill(group, signal.SIGKILL)


def kill(group: int, sent: signal.Signals) -> None:
    """Send a signal to all processes of a group, if there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sent)


def of_gpu(worker: int, gpus: int, visible: str | None) -> dict[str, str]:
    """Return the environment of a worker: the GPUs that there are, in turn."""
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": names[worker % gpus]}
