"""A task that starts processes which leave its process group in every way, for the tests of what is left of a trial."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from runner.registry import register

SLEEP = ["sleep", "987654"]


def forked():
    """Fork twice in this process, as a daemon does; return the pid of the daemon."""
    ours, theirs = os.pipe()
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(theirs, str(os.getpid()).encode())
        time.sleep(987654)
    os.close(theirs)
    pid = int(os.read(ours, 20))
    os.close(ours)
    os.wait()
    return pid


def double():
    """Start a shell that starts a process in a session of its own and ends."""
    shown = subprocess.run(
        ["sh", "-c", "setsid sleep 987654 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True
    )
    return int(shown.stdout)


def deaf():
    """Start a daemon that ignores all signals that can be ignored, without any environment."""
    code = "import signal, time\n[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 13, 15)]\ntime.sleep(987654)"
    return subprocess.Popen([sys.executable, "-S", "-c", code], env={}, start_new_session=True).pid


def stopped():
    """Start a process in another session, and stop it."""
    pid = subprocess.Popen(SLEEP, start_new_session=True).pid
    os.kill(pid, signal.SIGSTOP)
    return pid


def native():
    """Fork without Python's knowledge: no hook of Python runs."""
    pid = ctypes.CDLL(None).fork()
    if not pid:
        ctypes.CDLL(None).setsid()
        ctypes.CDLL(None).pause()
        os._exit(0)
    return pid


def start_all():
    """Start one process of each kind and return their pids."""
    return [forked(), double(), deaf(), stopped(), native()]


@register("task")
def escape(job, *, end: Literal["done", "raise", "exit", "killed", "crash", "wait"]):
    """Start processes of every kind, write down their pids, and end in one way."""
    folder = Path(job.folder)
    pids = start_all()
    (folder / "writing").write_text(" ".join(map(str, [os.getpid(), *pids])))
    (folder / "writing").rename(folder / "pids")
    match end:
        case "raise":
            raise ZeroDivisionError("a mistake")
        case "exit":
            os._exit(7)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            ctypes.string_at(0)
        case "wait":
            time.sleep(987654)
    return 0
