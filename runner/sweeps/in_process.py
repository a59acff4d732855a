"""A launcher that runs everything in this process, one run after the other."""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import redirect_stderr, redirect_stdout

from runner.engine.interruption import Interrupted
from runner.status import Status
from runner.sweeps.outcome import LOG, Ended, finished_result, folder_of, mark_running
from runner.sweeps.trial import Start, run_here
from runner.tasks.job import Job


class InProcess:
    """Runs jobs here: for a single run, and for runs inside a trial, whose process is one of many already.

    The output of a run goes to its log, as with our other launcher. A run that crashes takes this process with it;
    there is no timeout, no retry and no memory limit.
    """

    def __init__(self, start: Start) -> None:
        """Prepare to run tasks with `start`."""
        self._start, self._numbers = start, itertools.count()
        self._queue: deque[tuple[int, Job]] = deque()
        self._done: deque[Ended] = deque()

    def free(self) -> int:
        """Return 1 if nothing waits."""
        return int(self.idle())

    def submit(self, job: Job) -> int:
        """Take a run; one that has a result in its folder is not run again."""
        number = next(self._numbers)
        if result := finished_result(job):
            self._done.append(Ended(number=number, job=job, result=result, ran=False))
        else:
            self._queue.append((number, job))
        return number

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended, after running the next one if there is none. Raises Interrupted after a signal."""
        if not self._done and self._queue:
            number, job = self._queue.popleft()
            mark_running(job)
            folder = folder_of(job)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
                ending, result = run_here(job, self._start)
            self._done.append(Ended(number=number, job=job, result=result, ran=True, seconds=result.seconds))
            if ending.status is Status.INTERRUPTED:
                raise Interrupted(ending.exit_code - 128)
        return self._done.popleft() if self._done else None

    def stop_all(self) -> None:
        """Forget the runs that have not begun."""
        self._queue.clear()

    def idle(self) -> bool:
        """Return True if nothing is left."""
        return not self._queue and not self._done

    def loaded(self) -> bool:
        """Return True: this process is ready."""
        return True

    def running(self) -> list[Job]:
        """Return nothing: while a run computes, nobody asks."""
        return []

    def waiting(self) -> int:
        """Return how many runs have not begun."""
        return len(self._queue)

    def close(self) -> None:
        """Do nothing: there is no other process."""
