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
from typing import NoReturn

from runner.engine import interruption, processes
from runner.engine.garbage import collecting, paused
from runner.printing import standard_error
from runner.status import print_error
from runner.streams import guard
from runner.sweeps import loading
from runner.sweeps.channel import Channel, Closed, Message
from runner.sweeps.forks import Forks, TemplateEnded
from runner.sweeps.trial import load_start, run_trial
from runner.sweeps.worker_group import MARK
from runner.user_paths import anchor, start_folder

# With this many trials or more, collapsing memory into large pages saves more than it costs. A sweep of unknown length
# that has run this many will probably run as many again.
_MANY = 100


def main(descriptor: int) -> None:
    """Serve the sweep at the other end of a socket until it closes the socket."""
    guard()
    anchor(start_folder())
    # Terminals and schedulers send a signal to all processes, but the sweep decides which of them end
    interruption.ignore(*interruption.STOPPING)
    interruption.watch_children()
    # Stopped or not, this process sees that the sweep ended, and ends all that trials started
    processes.wake_with_parent()
    processes.adopt_orphans()
    channel = Channel(socket.socket(fileno=descriptor))
    with paused(), contextlib.closing(channel), contextlib.suppress(Closed):
        # A sweep that waits long for a slow start also asks whether this process still answers
        first = channel.only()
        if first["inline"]:
            _serve_inline(channel, first)
        else:
            _serve(channel, first)


def _serve_inline(channel: Channel, first: Message) -> None:
    """Run the trials in one child, one after the other, and end with it; end it when the sweep ends.

    The child itself may be inside a trial when the sweep ends.
    """
    wakeup, write = os.pipe()
    os.set_blocking(write, False)
    interruption.watch_children(write)
    copy, server = os.dup(channel.fileno()), os.getpid()
    child = os.fork()
    if child == 0:
        _run_inline(server, Channel(socket.socket(fileno=copy)), first, [wakeup, write])
    os.close(copy)
    events = select.poll()
    events.register(wakeup, select.POLLIN)
    # Reported when the other end is closed; bytes to read are the child's
    events.register(channel, getattr(select, "POLLRDHUP", 0))
    ready = dict(events.poll())
    if channel.fileno() in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    processes.end_descendants()
    _exit_as(os.waitstatus_to_exitcode(status))


def _run_inline(server: int, channel: Channel, message: Message, private: list[int]) -> NoReturn:
    """Load what trials need and run them in this process until the sweep ends."""
    code = 70
    try:
        for descriptor in private:
            os.close(descriptor)
        interruption.forget_children()
        interruption.take_defaults(*interruption.STOPPING)
        interruption.ignore_repeats()
        processes.end_with_parent(server)
        processes.adopt_orphans()
        with contextlib.suppress(Closed):
            _run_trials(channel, message)
        code = 0
    except BaseException as error:
        print_error(error)
    finally:
        os._exit(code)


def _run_trials(channel: Channel, message: Message) -> NoReturn:
    """Run trials in this process; raises Closed when the sweep ends."""
    channel.send({"did": "load", "gpus": loading.load(message)})
    start = load_start(message)
    helpers = processes.children(os.getpid())
    with collecting():
        while True:
            for asked in channel.receive():
                channel.send({"did": "start", "number": asked["number"], "pid": os.getpid()})
                code = run_trial(asked, start)
                processes.end_descendants(helpers, spare=processes.is_python_helper)
                channel.send({"did": "end", "number": asked["number"], "code": code})
                _free_memory()


def _serve(channel: Channel, first: Message) -> None:
    """Run each trial in a fork. All trials end when the sweep ends (Closed) or the template does."""
    forks = Forks(first, channel.close)
    try:
        with collecting():
            _Server(channel, forks, many=first["trials"] >= _MANY).serve()
    except TemplateEnded as lost:
        _close(forks)
        _exit_as(lost.code)
    finally:
        _close(forks)


def _close(forks: Forks) -> None:
    """Kill all processes of trials, and what they started."""
    forks.close()
    if not processes.adopts_orphans():
        processes.end_marked(f"{MARK}={os.environ[MARK]}", {os.getpid()})


class _Server:
    """Handles the messages of a sweep, and reports to it."""

    def __init__(self, channel: Channel, forks: Forks, *, many: bool) -> None:
        self._channel, self._forks, self._many = channel, forks, many
        self._ready, self._begun = False, 0

    def serve(self) -> None:
        """Serve until the sweep ends (Closed), or the template does (TemplateEnded)."""
        sweep = self._channel.fileno()
        while True:
            ready, _, _ = select.select([sweep, *self._forks.descriptors()], [], [])
            self._forks.read_messages()
            if self._forks.gpus is not None and not self._ready:
                self._ready = True
                self._loaded(self._forks.gpus)
            if sweep in ready:
                for message in self._channel.receive():
                    self._handle(message)
            for event in self._forks.events():
                self._channel.send(event)

    def _loaded(self, gpus: int) -> None:
        if self._many:
            self._forks.collapse_memory()
        # With GPUs, one process per GPU replaces this server
        if not gpus:
            self._forks.fork_ahead()
        self._channel.send({"did": "load", "gpus": gpus, "sizes": self._forks.sizes})

    def _handle(self, message: Message) -> None:
        if message["do"] == "ping":
            self._forks.ping()
            return
        number = message["number"]
        if message["do"] == "kill":
            self._forks.kill(number, signal.Signals(message["signal"]))
            return
        self._forks.start_trial(number, message)
        self._begun += 1
        if self._begun == _MANY and not self._many:
            self._forks.collapse_memory()


def _exit_as(code: int) -> NoReturn:
    """End this process as another one ended: with its exit code, or by the signal with the number `-code`."""
    if code < 0:
        interruption.end_by(-code)
    # At once: the sweep waits for the exit code as soon as the channel is closed
    standard_error().flush()
    os._exit(code)


def _free_memory() -> None:
    """Free the memory that the last trial in this process left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
