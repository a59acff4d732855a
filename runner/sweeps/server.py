"""The process that trials come from: torch, our parts and the data loaded once, then one fork per trial.

Nothing here computes with threads before a fork (a forked child would wait for them for ever), and nothing touches
CUDA: a process that computes on a GPU cannot be forked, so there each worker is such a process of its own, which runs
its trials one after the other in itself (`inline`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from typing import Any

from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.pages import collapse
from runner.sweeps.trial import alone, carry_out
from runner.sweeps.workers import kill

MODULES = (  # what trials would import, each by itself: a test compares
    "runner.tasks.train",
    "numpy.ctypeslib",
    "rich._emoji_codes",
    "rich.console",
    "rich.table",
    "safetensors.torch",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.plugins.custom_scalar.layout_pb2",
    "tensorboard.plugins.custom_scalar.metadata",
    "tensorboard.plugins.hparams.plugin_data_pb2",
    "tensorboard.plugins.text.metadata",
    "torch.fx.experimental._constant_symnode",
    "torch.nested._internal.nested_tensor",
)
MANY = 100  # trials that large pages pay for; so many known ones, or after so many probably as many more


def main(descriptor: int) -> None:
    """Serve the sweep at the other end of a socket until it is gone."""
    gc.disable()  # while the imports come: almost all that they make is for good
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the sweep says what is to end
    channel = Channel(socket.socket(fileno=descriptor))
    with contextlib.suppress(Closed):
        Server(channel).serve()


class Server:
    """Forks trials, and tells how each ended."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._running: dict[int, int] = {}  # pid -> number of the trial
        self._forks, self._settled = 0, False
        self._wake, write = os.pipe()
        self._descriptor = channel.fileno()
        for end in (self._wake, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only its byte in the pipe counts

    def serve(self) -> None:
        """Do what messages ask for; whatever runs ends with the channel."""
        try:
            while True:
                ready, _, _ = select.select([self._descriptor, self._wake], [], [])
                if self._wake in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                    self._reap()
                if self._descriptor in ready:
                    for message in self._channel.receive():
                        self._obey(message)
        finally:
            for pid in self._running:
                kill(pid, signal.SIGKILL)

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "load":
                self._channel.send({"did": "load", "gpus": load(message)})
                if message["trials"] >= MANY:
                    self._settle()
            case "run" if message["inline"]:
                self._channel.send({"did": "start", "number": message["number"], "pid": os.getpid()})
                code = carry_out(message)
                self._channel.send({"did": "end", "number": message["number"], "code": code})
                clear()
            case "run":
                self._fork(message)
            case "kill":
                for pid, number in self._running.items():
                    if number == message["number"]:
                        kill(pid, signal.Signals(message["signal"]))

    def _fork(self, message: Message) -> None:
        self._forks += 1
        if self._forks == MANY:
            self._settle()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                self._channel.close()
                alone(server)
                code = carry_out(message)
            finally:
                os._exit(code)
        with contextlib.suppress(OSError):  # it has done so itself, or is gone
            os.setpgid(pid, pid)
        self._running[pid] = message["number"]
        self._channel.send({"did": "start", "number": message["number"], "pid": pid})

    def _settle(self) -> None:
        """Make forks cheap, once."""
        if not self._settled:
            self._settled = True
            collapse()

    def _reap(self) -> None:
        """Tell of the trials that are over; what they have started themselves ends with them."""
        for pid in list(self._running):
            # waited for without being buried, so that its group's number cannot be another's yet
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                code = os.waitstatus_to_exitcode(status)
                self._channel.send({"did": "end", "number": self._running.pop(pid), "code": code})


def load(message: Message) -> int:
    """Import what trials need and read their data; return the number of GPUs."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # counting them otherwise would end all forking
    import torch

    from runner.engine import provenance

    torch.set_num_threads(1)
    sys.argv = message["argv"]
    for name in MODULES:
        importlib.import_module(name)
    with contextlib.suppress(Exception):  # the trial will say it
        load_data(message["plugins"], message["data"])
    provenance.keep()
    gc.freeze()  # what is here for good need not be looked through, and copied, in every trial
    gc.enable()
    return torch.cuda.device_count() if message["device"] != "cpu" else 0


def load_data(plugins: list[str], data: dict[str, Any]) -> None:
    """Read the data set that the trials share, if it is one that lies in memory."""
    from runner.assemble.data import keep
    from runner.tasks import load_plugins

    load_plugins(plugins)
    keep(data)


def clear() -> None:
    """Give back what a trial in this process has left."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
