"""Run a trial in a process of its own, forked from the one that a launcher of Hydra's has for several trials."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from runner.engine.interruption import handled, ignore
from runner.engine.processes import end_descendants, kill_group
from runner.engine.saving.folder import Result
from runner.printing import standard_error, standard_output
from runner.status import Ending, Status
from runner.sweeps.outcome import begin, finalize_result
from runner.sweeps.running import GRACE, Running, outcome, stop, watch
from runner.sweeps.trial import Start, isolate, message_of, run_trial
from runner.tasks.job import Job

# Seconds between two looks at a trial's process
_PAUSE = 0.2
# Seconds that a trial has to save itself before the time limit of its scheduler
_WARNED_GRACE = 110.0
_TIME_LIMIT = "the time limit of its job (hydra.launcher.timeout_min)"


@dataclass(frozen=True)
class _Process:
    """The process of a trial."""

    pid: int

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to the trial and all processes that it started."""
        kill_group(self.pid, sent)


@dataclass
class _Warning:
    """The warning of submitit's scheduler (SIGUSR2) that the job of a trial ends soon."""

    answer: Callable[[int, FrameType | None], object] | None = None  # submitit's handler
    came: bool = False


def run_apart(job: Job, start: Start, wanted: Callable[[], bool]) -> Result:
    """Run a job in a forked process, its output in its log; return its result, which is also in its folder.

    A trial that ends its process in any way fails alone. Once `wanted` returns False it is asked to save itself and
    end. A warning of the scheduler does the same; submitit then puts the job into the queue again, or the status of
    the trial is `timeout`.
    """
    if failed := begin(job):
        return failed
    _import_torch()
    for stream in (standard_output(), standard_error()):
        stream.flush()
    began, parent = time.monotonic(), os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_and_exit(job, start, parent)
    # The forked process does the same; whichever is first
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    each = Running(number=0, job=job, worker=_Process(pid), began=began)
    with _warned() as warning:
        code = _wait(each, pid, wanted, warning)
        result = outcome(each, code, time.monotonic() - began)
        if warning.came and not result.status.is_result:
            result = _answered(job, result, warning)
    return result


def _import_torch() -> None:
    """Import what trials need in the process that forks them, once for all of its trials; it computes nothing."""
    if "torch" not in sys.modules:
        import torch

        # A fork of a process with threads would wait for them forever
        torch.set_num_threads(1)
        importlib.import_module("runner.tasks.train")


def _run_and_exit(job: Job, start: Start, parent: int) -> NoReturn:
    """Run the trial in this forked process, and end the process."""
    code = 70
    try:
        # Slurm warns all processes of a job; the one that forked this one answers
        ignore(signal.SIGUSR2)
        isolate(parent)
        code = run_trial({"job": message_of(job), "memory": None}, start)
        # At the limit of its memory, a process cannot look
        with contextlib.suppress(Exception):
            end_descendants()
    finally:
        os._exit(code)


def _wait(each: Running, pid: int, wanted: Callable[[], bool], warning: _Warning) -> int:
    """Wait until the process of a trial ends, and return its exit code or minus a signal's number."""
    ended = _ending(pid)
    while not ended(_PAUSE):
        if warning.came:
            stop(each, Status.INTERRUPTED, "stopped before the time limit of its job", _WARNED_GRACE)
        elif not wanted():
            stop(each, Status.INTERRUPTED, "stopped", GRACE)
        watch(each, None)
    # Before the process is reaped, so that no other process group can get its number
    kill_group(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _ending(pid: int) -> Callable[[float], bool]:
    """Return a function that waits for some seconds at most and returns True if the process has ended."""

    def ended(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if (left := until - time.monotonic()) <= 0:
                return False
            select.select([], [], [], min(left, 0.02))
        return True

    return ended


@contextmanager
def _warned() -> Iterator[_Warning]:
    """Note the scheduler's warning in the body, if submitit handles it."""
    before = signal.getsignal(signal.SIGUSR2)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield _Warning()
        return
    warning = _Warning(before)

    def note(number: int, frame: FrameType | None) -> None:
        warning.came = True

    with handled(note, (signal.SIGUSR2,)):
        yield warning


def _answered(job: Job, result: Result, warning: _Warning) -> Result:
    """Have submitit answer the warning: it ends this process and repeats the job, or the trial is timed out."""
    if warning.answer is not None:
        # Raised where submitit does not repeat the job; SystemExit where it does
        with contextlib.suppress(Exception):
            warning.answer(int(signal.SIGUSR2), None)
    return finalize_result(job, Ending(Status.TIMEOUT, result.exit or 143, f"reached {_TIME_LIMIT}"), 0.0)
