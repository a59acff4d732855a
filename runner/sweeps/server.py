"""The server process between a sweep and its trials: it receives trials and reports how each ended.

A template process loads torch, the components and the data once and is forked for each trial (`template`). A process
that uses a GPU cannot be forked. With GPUs, each worker is therefore a process that runs its trials itself, one after
the other (`inline`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys

from runner.engine.garbage import collecting, paused
from runner.streams import guard
from runner.sweeps import loading
from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.forks import Forks, TemplateEnded
from runner.sweeps.trial import load_start, run_trial
from runner.user_paths import anchor, start_folder

# With this many trials or more, collapsing memory into large pages saves more than it costs. A sweep of unknown length
# that has run this many will probably run as many again.
_MANY = 100


def main(descriptor: int) -> None:
    """Serve the sweep at the other end of a socket until it closes the socket."""
    guard()
    anchor(start_folder())
    # The terminal sends Ctrl-C to all processes, but the sweep decides which of them end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
    with paused(), contextlib.closing(channel), contextlib.suppress(Closed):
        (first,) = channel.receive()
        if first["inline"]:
            _run_inline(channel, first)
        else:
            _serve(channel, first)


def _run_inline(channel: Channel, message: Message) -> None:
    """Load what trials need and run them in this process, one after the other; raises Closed when the sweep ends."""
    channel.send({"did": "load", "gpus": loading.load(message)})
    start = load_start(message)
    with collecting():
        while True:
            for asked in channel.receive():
                channel.send({"did": "start", "number": asked["number"], "pid": os.getpid()})
                code = run_trial(asked, start)
                channel.send({"did": "end", "number": asked["number"], "code": code})
                _free_memory()


def _serve(channel: Channel, first: Message) -> None:
    """Run each trial in a fork. All trials end when the sweep ends (Closed) or the template does."""
    forks = Forks(first, channel.close)
    try:
        with collecting():
            _Server(channel, forks, many=first["trials"] >= _MANY).serve()
    except TemplateEnded as lost:
        forks.close()
        _exit_as(lost.code)
    finally:
        forks.close()


class _Server:
    """Handles the messages of a sweep, and reports to it."""

    def __init__(self, channel: Channel, forks: Forks, *, many: bool) -> None:
        self._channel, self._forks, self._many = channel, forks, many
        self._ready, self._begun = False, 0

    def serve(self) -> None:
        """Serve until the sweep ends (Closed), or the template does (Lost)."""
        sweep = self._channel.fileno()
        while True:
            ready, _, _ = select.select([sweep, *self._forks.descriptors()], [], [])
            self._forks.read_messages()
            if self._forks.gpus is not None and not self._ready:
                self._ready = True
                self._loaded(self._forks.gpus)
            for number, code in self._forks.ended():
                self._channel.send({"did": "end", "number": number, "code": code})
            if sweep in ready:
                for message in self._channel.receive():
                    self._handle(message)

    def _loaded(self, gpus: int) -> None:
        if self._many:
            self._forks.collapse_memory()
        # With GPUs, one process per GPU replaces this server
        if not gpus:
            self._forks.fork_ahead()
        self._channel.send({"did": "load", "gpus": gpus})

    def _handle(self, message: Message) -> None:
        number = message["number"]
        if message["do"] == "kill":
            self._forks.kill(number, signal.Signals(message["signal"]))
            return
        self._channel.send({"did": "start", "number": number, "pid": self._forks.start_trial(number, message)})
        self._begun += 1
        if self._begun == _MANY and not self._many:
            self._forks.collapse_memory()


def _exit_as(code: int) -> None:
    """End this process as another one ended: with its exit code, or by the signal with the number `-code`."""
    if code < 0:
        # The handler of SIGKILL cannot be changed
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _free_memory() -> None:
    """Free the memory that the last trial in this process left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
