"""One trial inside its process: its output goes to its log, whatever it raises ends in its `result.json`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from runner.status import ending_of_code, print_error
from runner.sweeps.channel import Message
from runner.sweeps.outcome import LOG, folder_of, settle
from runner.tasks import start
from runner.tasks.job import Job


def carry_out(message: Message) -> int:
    """Run the trial that a message asks for and return its exit code; raises nothing that a trial can raise."""
    import torch

    job = job_of(message)
    redirect(folder_of(job))
    torch.set_num_threads(message["threads"])
    if message["memory"]:
        limit_memory(message["memory"])
    began = time.monotonic()
    try:
        ended = ending_of_code(start(job))
    except BaseException as error:
        ended = print_error(error)
    flush()
    settle(job, ended, time.monotonic() - began)
    return ended.exit_code


def job_of(message: Message) -> Job:
    """Return the job in a message."""
    job = message["job"]
    return Job(**{**job, "overrides": tuple(job["overrides"])})


def message_of(job: Job) -> Message:
    """Return a job as plain values."""
    return {
        "config": job.config,
        "overrides": job.overrides,
        "folder_name": job.folder_name,
        "folder": job.folder,
        "hash8": job.hash8,
        "group_hash": job.group_hash,
        "notes": job.notes,
        "search": job.search,
    }


def redirect(folder: Path) -> None:
    """Have all output of this process, native code's too, go to the end of the trial's log, and give it no input."""
    folder.mkdir(parents=True, exist_ok=True)
    flush()
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def flush() -> None:
    """Write out what this process has printed."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def limit_memory(gigabytes: float) -> None:
    """Refuse this process more memory than that on top of what it has mapped now."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def alone(parent: int) -> None:
    """Make this forked process a trial's: signals as at the start of a program, a group of its own, none without us."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)
    die_with(parent)


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        import ctypes

        set_pdeathsig = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
