"""The process between a sweep and its trials: it is told what to run, and tells how each ended.

Torch, our parts and the data are loaded once, in a process that is then forked for each trial (`template`). A process
that computes on a GPU cannot be forked, so there each worker is a process of its own, which runs its trials one after
the other in itself (`inline`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys

from runner.sweeps import loading
from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.forks import Forks, Lost
from runner.sweeps.trial import carry_out

MANY = 100  # trials that large pages pay for; so many known ones, or after so many probably as many more


def main(descriptor: int) -> None:
    """Serve the sweep at the other end of a socket until it is gone."""
    gc.disable()  # while the imports come: almost all that they make is for good
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the sweep says what is to end
    channel = Channel(socket.socket(fileno=descriptor))
    with contextlib.suppress(Closed):
        (first,) = channel.receive()
        if first["inline"]:
            alone(channel, first)
        else:
            serve(channel, first)


def alone(channel: Channel, message: Message) -> None:
    """Load what trials need and run them here, one after the other; raises Closed when the sweep is gone."""
    channel.send({"did": "load", "gpus": loading.load(message)})
    while True:
        for asked in channel.receive():
            channel.send({"did": "start", "number": asked["number"], "pid": os.getpid()})
            code = carry_out(asked)
            channel.send({"did": "end", "number": asked["number"], "code": code})
            clear()


def serve(channel: Channel, first: Message) -> None:
    """Run each trial in a fork; whatever runs ends when the sweep is gone (Closed), or what trials are forked from."""
    forks = Forks(first, channel.close)
    gc.enable()
    try:
        Server(channel, forks, many=first["trials"] >= MANY).serve()
    except Lost as lost:
        forks.close()
        end_as(lost.code)
    finally:
        forks.close()


class Server:
    """Does what the sweep's messages ask for, and tells it what happens."""

    def __init__(self, channel: Channel, forks: Forks, *, many: bool) -> None:
        self._channel, self._forks, self._many = channel, forks, many
        self._ready, self._begun = False, 0

    def serve(self) -> None:
        """Go on until the sweep is gone (Closed), or the template (Lost)."""
        sweep = self._channel.fileno()
        while True:
            ready, _, _ = select.select([sweep, *self._forks.descriptors()], [], [])
            self._forks.hear()
            if self._forks.gpus is not None and not self._ready:
                self._ready = True
                self._loaded(self._forks.gpus)
            for number, code in self._forks.over():
                self._channel.send({"did": "end", "number": number, "code": code})
            if sweep in ready:
                for message in self._channel.receive():
                    self._obey(message)

    def _loaded(self, gpus: int) -> None:
        if self._many:
            self._forks.settle()
        if not gpus:  # else a process for each of them comes in this one's place
            self._forks.ahead()
        self._channel.send({"did": "load", "gpus": gpus})

    def _obey(self, message: Message) -> None:
        number = message["number"]
        if message["do"] == "kill":
            self._forks.kill(number, signal.Signals(message["signal"]))
            return
        self._channel.send({"did": "start", "number": number, "pid": self._forks.begin(number, message)})
        self._begun += 1
        if self._begun == MANY and not self._many:
            self._forks.settle()


def end_as(code: int) -> None:
    """End this process as another one did: by its exit code, or by minus a signal's number."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def clear() -> None:
    """Give back what a trial in this process has left."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
