"""The process that trials are copies of: it has imported and read what they need, and does next to nothing itself.

Each page of memory that it writes to after a fork is copied, and tears apart a large page, which all later forks then
copy in 512 pieces. So it is told what to do by single bytes, and whatever takes thought is its server's (`forks`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn

from runner.sweeps import loading
from runner.sweeps.channel import Channel, Message
from runner.sweeps.pages import collapse
from runner.sweeps.trial import alone, carry_out, die_with
from runner.sweeps.workers import kill

FORK, BURY, SETTLE = b"f", b"b", b"s"  # what it can be asked for
OVER = os.WEXITED | os.WNOHANG | os.WNOWAIT
LIGHT = 1 << 20  # kilobytes; a process that holds more takes its time to give them back


def stand(server: int, message: Message, requests: int, said: socket.socket) -> None:
    """Load what trials need, then do what is asked for, until nobody can ask any more.

    What it and its forks say are a word, a pid and a number each: `loaded`, `born`, `over` and `dead`.
    """
    die_with(server)
    here = os.getpid()
    said.send(b"loaded %d %d" % (here, loading.load(message)))
    while request := os.read(requests, 1):
        if request == FORK:
            try:
                pid = os.fork()
            except OSError as error:  # no memory, or too many processes
                said.send(b"dead 0 %d" % (error.errno or 1))
                continue
            if pid == 0:
                os.close(requests)
                live(here, said)
        elif request == BURY:
            bury(said)
        else:
            collapse()


def bury(said: socket.socket) -> None:
    """Say which forks are over and how; what they have started themselves ends with them."""
    with contextlib.suppress(ChildProcessError):  # none are left
        # waited for without being buried, so that its group's number cannot be another's yet
        while over := os.waitid(os.P_ALL, 0, OVER):
            kill(over.si_pid, signal.SIGKILL)
            pid, status = os.waitpid(over.si_pid, 0)
            said.send(b"dead %d %d" % (pid, os.waitstatus_to_exitcode(status)))


def live(template: int, said: socket.socket) -> NoReturn:
    """Wait for a trial, carry it out, and end."""
    code = 70
    try:
        alone(template)
        message = awaited(said)
        code = carry_out(message)
        if light():  # else it is over when it is gone, with what it holds
            said.send(b"over %d %d" % (os.getpid(), code))
    finally:
        os._exit(code)


def awaited(said: socket.socket) -> Message:
    """Say that this process is there, and how it can be reached, and return the trial that comes."""
    ours, theirs = socket.socketpair()
    socket.send_fds(said, [b"born %d 0" % os.getpid()], [theirs.fileno()])
    theirs.close()
    channel = Channel(ours)
    message = channel.only()
    channel.close()
    return message


def light() -> bool:
    """Tell whether this process has never held much memory: another may begin while its own is given back."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < LIGHT
