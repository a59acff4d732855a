"""Components that fail in many ways, for sweeps with failing trials (`plugins=[faulty]`)."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import escaping  # noqa: F401  (its task is part of this plugin)
import meddling  # noqa: F401  (likewise)
import torch

from runner.errors import DataError
from runner.registry import register


def broken():
    raise ZeroDivisionError("a mistake")


def leave():
    sys.exit(0)


def vanish():
    os._exit(7)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    ctypes.string_at(0)


def no_memory():
    raise MemoryError


def too_much():
    torch.ones(2**33).sum()  # 32 GiB, more than the launcher allows


def no_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "987654"])
    time.sleep(987654)


def chatter():
    while True:
        sys.stdout.write("x" * 1000 + "\n")


def bad_data():
    raise DataError("image 7 is not readable")


WAYS = [broken, leave, vanish, killed, crash, no_memory, too_much, no_gpu_memory, sleep, chatter, bad_data, None]


@register("mix")
def faulty(*, which: int, at: int):
    """Return a mix that leaves even trials alone; each odd one fails in its own way at its `at`-th batch."""
    seen = 0

    def mix(images, labels, key):
        nonlocal seen
        seen += 1
        if which % 2 and seen == at:
            way = WAYS[which // 2]
            if way is None:
                return images * torch.nan, labels
            way()
        return images, labels

    return mix


@register("task")
def nothing(job):
    """Do nothing."""
    return 0


@register("task")
def wait(job):
    """Wait until the process is ended."""
    (Path(job.folder) / "begun").touch()
    time.sleep(987654)


@register("task")
def stay(job):
    """Ignore SIGTERM, and start processes that do the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "987654"])
    (Path(job.folder) / "begun").touch()
    time.sleep(987654)


@register("task")
def leave_running(job):
    """End, and leave a running process behind."""
    (Path(job.folder) / "pid").write_text(str(subprocess.Popen(["sleep", "987654"]).pid))
    return 0


@register("task")
def hold_much(job):
    """Allocate more than a gigabyte."""
    (Path(job.folder) / "pid").write_text(str(os.getpid()))
    torch.ones(3 << 27)
    return 0


@register("task")
def flaky(job):
    """Succeed at the third attempt."""
    attempts = Path(f"{job.folder}.attempts")
    attempts.write_text((attempts.read_text() if attempts.exists() else "") + "x")
    if len(attempts.read_text()) < 3:
        raise DataError("the disk was not there")
    return 0


@register("task")
def forgetful(job):
    """Have too little memory until the third attempt."""
    attempts = Path(f"{job.folder}.attempts")
    attempts.write_text((attempts.read_text() if attempts.exists() else "") + "x")
    if len(attempts.read_text()) < 3:
        raise torch.OutOfMemoryError("CUDA out of memory") if job.config["seed"] else MemoryError
    return 0


@register("task")
def kill_worker(job):
    """With seed 0 kill the process that runs this trial for a launcher; the others take some time."""
    time.sleep(2)
    if job.config["seed"] == 0:
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(2)
    return 0


@register("task")
def stopped(job):
    """End by a signal that somebody sent to this process alone, if the seed is odd."""
    if job.config["seed"] % 2:
        os.kill(os.getpid(), {1: signal.SIGTERM, 3: signal.SIGINT}.get(job.config["seed"], signal.SIGKILL))
    return 0
