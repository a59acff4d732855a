"""The template process, which is forked for each trial: it loads what trials need, and does little else.

Each memory page that it writes to after a fork is copied, and splits a large page into 512 small ones for all later
forks. It therefore gets its requests as single bytes, and the server (`forks`) does everything else.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from runner.engine import processes
from runner.engine.garbage import collecting
from runner.sweeps import loading
from runner.sweeps.channel import Channel, Message
from runner.sweeps.trial import Start, isolate, load_start, run_trial

# Requests to the template, one byte each
FORK, REAP, COLLAPSE_MEMORY, PING = b"f", b"r", b"c", b"p"
_OVER = os.WEXITED | os.WNOHANG | os.WNOWAIT
# Bytes of a huge page
_LARGE = 2 << 20
# MADV_COLLAPSE of <linux/mman.h>, Linux 6.1
_COLLAPSE = 25
# Kilobytes; a process that holds more needs noticeable time to free them
_LIGHT = 1 << 20


def serve_forks(server: int, message: Message, requests: int, messages: socket.socket, private: list[int]) -> None:
    """Load what trials need, then handle requests until the pipe of requests is closed.

    The template sends a word, a pid and a number each: two `size` for each run whose size is asked for, `loaded`,
    `waiting`, `dead` and `alive`. Descriptors that trials must not have are those of `requests`, `messages` and
    `private`.
    """
    processes.end_with_parent(server)
    processes.adopt_orphans()
    here = os.getpid()
    gpus = loading.load(message)
    for number in itertools.chain.from_iterable(each or (-1, -1) for each in loading.sizes(message)):
        messages.send(b"size %d %d" % (here, number))
    messages.send(b"loaded %d %d" % (here, gpus))
    start = load_start(message)
    forks: set[int] = set()
    # What the import of a plugin started serves all trials
    helpers = processes.children(here)
    # Forks inherit the frozen objects: no trial searches them, and so none copies their pages.
    with collecting():
        while request := os.read(requests, 1):
            if request == FORK:
                _fork(forks, messages, here, start, [requests, *private])
            elif request == REAP:
                _reap(messages, forks, helpers)
            elif request == PING:
                messages.send(b"alive %d 0" % here)
            else:
                _collapse()


def _fork(forks: set[int], messages: socket.socket, template: int, start: Start, private: list[int]) -> None:
    """Fork a process that waits for a trial."""
    try:
        pid = os.fork()
    except OSError as error:
        # Out of memory, or too many processes
        messages.send(b"dead 0 %d" % (error.errno or 1))
        return
    if pid == 0:
        _wait_and_run(template, messages, start, private)
    forks.add(pid)


def _reap(messages: socket.socket, forks: set[int], helpers: set[int]) -> None:
    """Report the forks that ended, with their exit codes, and kill the processes that they started.

    What a trial started and did not end is this process's child as soon as the trial has ended.
    """
    # No child is left
    with contextlib.suppress(ChildProcessError):
        # WNOWAIT keeps the ended process, so that no other process group can get its number before the kill.
        while over := os.waitid(os.P_ALL, 0, _OVER):
            if over.si_pid in forks:
                processes.kill_group(over.si_pid, signal.SIGKILL)
            pid, status = os.waitpid(over.si_pid, 0)
            if pid in forks:
                forks.discard(pid)
                processes.end_descendants(forks | helpers)
                messages.send(b"dead %d %d" % (pid, os.waitstatus_to_exitcode(status)))


def _wait_and_run(template: int, messages: socket.socket, start: Start, private: list[int]) -> NoReturn:
    """Wait for a trial, run it, and end the process with what the trial started."""
    code = 70
    try:
        isolate(template)
        channel = _wait(messages)
        messages.close()
        for descriptor in private:
            os.close(descriptor)
        code = run_trial(channel.only(), start)
        # At the limit of its memory, a process cannot look; the template then does
        with contextlib.suppress(Exception):
            processes.end_descendants()
            # Otherwise the trial ends with its process, when the memory is free
            if _is_light():
                channel.send({"code": code})
    finally:
        os._exit(code)


def _wait(messages: socket.socket) -> Channel:
    """Report that this process waits for a trial, and return the channel on which it comes."""
    ours, theirs = socket.socketpair()
    socket.send_fds(messages, [b"waiting %d 0" % os.getpid()], [theirs.fileno()])
    theirs.close()
    return Channel(ours)


def _is_light() -> bool:
    """Return True if this process never held much memory, so that another may start while this one frees it."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < _LIGHT


def _collapse() -> None:
    """Put the memory of this process into large pages, if the system supports it (Linux 6.1).

    torch built with CUDA holds 300 MB in 75,000 pages. Each fork copies their entries, and each exit walks them. With
    large pages a fork takes half the time, and a trial's process a third less system time. The call takes 0.05 to
    0.5 s, depending on how many large pages are free: less than 100 trials save.
    """
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in _own_memory():
        for address in range(-(-start // _LARGE) * _LARGE, end // _LARGE * _LARGE, _LARGE):
            advise(address, _LARGE, _COLLAPSE)


def _own_memory() -> Iterator[tuple[int, int]]:
    """Yield the address ranges that this process can write to and that no file backs."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, _, *name = line.split(maxsplit=5)
        if "w" in rights and name in ([], ["[heap]"]):
            start, end = addresses.split("-")
            yield int(start, 16), int(end, 16)
