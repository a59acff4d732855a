"""A launcher that runs everything in this process, one run after the other."""

from __future__ import annotations

import os
from pathlib import Path

from runner.engine.interruption import Interrupted
from runner.engine.saving.folder import Result
from runner.engine.saving.storage import convert_os_errors
from runner.errors import Locked, StorageError
from runner.printing import printing_to
from runner.status import Status, ending
from runner.sweeps.launcher import Queued
from runner.sweeps.outcome import LOG, Ended, begin, finalize_result, folder_of
from runner.sweeps.owning import locked_ending, own_folder, result_of
from runner.sweeps.trial import Start, run_here
from runner.tasks.job import Job
from runner.user_paths import full


class InProcess(Queued):
    """Runs jobs in this process: a single run, or the runs inside a trial, which is already one of many processes.

    The output of a run goes to its log, as in `Pool`. A run that crashes also ends this process. There is no timeout,
    no retry and no memory limit.
    """

    def __init__(self, start: Start) -> None:
        """Prepare to run tasks with `start`."""
        super().__init__()
        self._start = start

    def at_once(self) -> int:
        """Return 1."""
        return 1

    def free(self) -> int:
        """Return 1 if no run waits, else 0."""
        return int(self.idle())

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return a run that ended, after running the next one if there is none. Raises Interrupted after a signal."""
        if not self._done and self._queue:
            number, job = self._queue.popleft()
            result, code = self._run(job)
            self._done.append(Ended(number=number, job=job, result=result, ran=True, seconds=result.seconds))
            if code is not None:
                raise Interrupted(code - 128)
        return self._done.popleft() if self._done else None

    def _run(self, job: Job) -> tuple[Result, int | None]:
        """Run a job with its output in its log; return its result, and its exit code if a signal ended it."""
        if failed := begin(job):
            return failed, None
        try:
            with own_folder(job) as held, held.lend(), printing_to(_open_log(folder_of(job) / LOG)):
                ended, result = run_here(job, self._start)
        except Locked as error:
            return result_of(locked_ending(error)), None
        except StorageError as error:
            return finalize_result(job, ending(error), 0.0), None
        return result, ended.exit_code if ended.status is Status.INTERRUPTED else None


def _open_log(path: Path) -> int:
    """Return the descriptor of a log, opened at its end; raises StorageError if that fails."""
    with convert_os_errors(path):
        return os.open(full(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
