"""runner's launcher: a pool of processes that run trials and return results in the order in which they end."""

from __future__ import annotations

import itertools
import select
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from runner.engine.saving.folder import Result
from runner.printing import write_stderr
from runner.status import Status
from runner.sweeps.channel import BadMessage, Closed, Message
from runner.sweeps.failures import may_pass
from runner.sweeps.launcher import PAUSE, LauncherSettings
from runner.sweeps.outcome import Ended, begin, finished_result
from runner.sweeps.run_sizes import Size, sizes_in
from runner.sweeps.running import GRACE, Running, outcome, seconds_left, stop, watch
from runner.sweeps.trial import message_of
from runner.sweeps.worker_group import SILENCE, Worker, WorkerGroup
from runner.tasks.job import Job


class Pool:
    """Runs jobs, each in its own process, several at once.

        with Pool(settings, like=job) as pool:
            number = pool.submit(job)            # returns immediately; the trial is in the job's `folder`
            ended = pool.next_done(timeout=1.0)  # an Ended; None after the timeout or if nothing is left
            pool.stop(number)                    # it saves itself and ends: `interrupted`

    A trial that has a result in its folder is not run: it is returned with `ran=False`. A trial that crashes its
    process fails alone: `ended.result` holds status and reason, its folder the log. `like` is any of the jobs; its
    plugins and its data are loaded once, for all. `entry` is the module whose `start(job)` the processes
    call. No other thread or process may use the pool.
    """

    def __init__(self, settings: LauncherSettings, *, like: Job, entry: str = "runner.tasks") -> None:
        self._settings, self._group = settings, WorkerGroup(settings, like, entry)
        self._numbers = itertools.count()
        self._queue: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._done: deque[Ended] = deque()
        self._sizes: list[Size | None] | None = None

    def sizes(self, configs: Sequence[Mapping[str, Any]], trials: int) -> list[Size | None]:
        """Return the sizes of runs, from the process that then runs the trials; it loads meanwhile."""
        self._group.start(trials, configs)
        while self._sizes is None and self._group.workers:
            self._wait(PAUSE)
        found = self._sizes or []
        return found if len(found) == len(configs) else [None] * len(configs)

    def at_once(self) -> int:
        """Return how many trials run at the same time."""
        return self._group.seats

    def submit(self, job: Job) -> int:
        """Take a job and return its number; it starts when a worker is free."""
        number = next(self._numbers)
        if result := finished_result(job):
            self._done.append(Ended(number=number, job=job, result=result, ran=False))
        else:
            self._queue.append(Running(number=number, job=job))
        return number

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return the next trial that ended; None if none ends within the time (seconds), or if none is left."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._done and (self._queue or self._running):
            left = PAUSE if until is None else min(PAUSE, until - time.monotonic())
            if left <= 0 and until is not None:
                break
            self._run_once(left)
        return self._done.popleft() if self._done else None

    def stop(self, number: int) -> None:
        """End a trial: one that runs by SIGTERM, and by SIGKILL a few seconds later."""
        for each in [each for each in self._queue if each.number == number]:
            self._queue.remove(each)
            result = Result(status=Status.INTERRUPTED, exit=143, reason="stopped before it began")
            self._done.append(Ended(number=number, job=each.job, result=result, ran=False))
        if number in self._running:
            stop(self._running[number], Status.INTERRUPTED, "stopped", GRACE)

    def stop_all(self) -> None:
        """End all running trials, and drop the waiting ones."""
        self._queue.clear()
        for each in self._running.values():
            stop(each, Status.INTERRUPTED, "stopped", GRACE)

    def idle(self) -> bool:
        """Return True if no trial waits, runs, or remains to be returned."""
        return not (self._queue or self._running or self._done)

    def loaded(self) -> bool:
        """Return True if the processes are ready for trials."""
        return bool(self._group.ready)

    def free(self) -> int:
        """Return how many more trials could begin now; one before the processes are ready, so that they load for it."""
        if self.idle():
            return 1
        return sum(worker.seats for worker in self._group.ready) - len(self._running) - len(self._queue)

    def waiting(self) -> int:
        """Return how many trials have not begun."""
        return len(self._queue)

    def running(self) -> list[Job]:
        """Return the trials that run now."""
        return [each.job for each in self._running.values()]

    def close(self) -> None:
        """End all processes immediately."""
        self._group.close()

    def finish(self) -> None:
        """Do nothing: no trial goes on."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run_once(self, seconds: float) -> None:
        """Start trials, wait for a message or the time, and end trials that are late."""
        self._group.start(len(self._queue))
        self._assign()
        limit = self._settings.timeout
        self._wait(min((seconds_left(each, limit) for each in self._running.values()), default=seconds), seconds)
        for each in self._running.values():
            watch(each, limit)

    def _wait(self, *seconds: float) -> None:
        """Wait for messages of the processes, for the least of some seconds."""
        began = time.monotonic()
        ready, _, _ = select.select(self._group.workers, [], [], min(seconds))
        for worker in ready:
            try:
                for message in worker.receive():
                    self._handle_message(worker, message)
            except BadMessage:
                self._worker_ended(worker, "its process sent what is no message of runner's")
            except Closed:
                self._worker_ended(worker)
        # If this process was stopped, one round took long
        for worker in self._group.silent(min(time.monotonic() - began, 1.0)):
            self._say_silent()
            self._worker_ended(worker)

    def _assign(self) -> None:
        for worker in self._group.workers:
            busy = sum(each.worker is worker for each in self._running.values())
            while worker in self._group.ready and self._queue and busy < worker.seats:
                each = self._queue.popleft()
                if failed := begin(each.job):
                    self._done.append(Ended(number=each.number, job=each.job, result=failed, ran=True))
                    continue
                each.worker, each.began, busy = worker, time.monotonic(), busy + 1
                self._running[each.number] = each
                worker.run(each.number, self._message(each.job, worker))

    def _message(self, job: Job, worker: Worker) -> Message:
        # No limit on CUDA, which maps far more memory than it uses
        memory = None if worker.inline else self._settings.memory
        words = (f"threads={self._settings.threads}",) if self._settings.threads else ()
        config = {**job.config, "threads": self._settings.threads_of(job)}
        ready = replace(job, config=config, overrides=(*job.overrides, *words))
        return {"job": message_of(ready), "memory": memory}

    def _handle_message(self, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["did"] == "load":
            self._sizes = self._sizes or sizes_in(message)
            self._group.loaded(worker, message["gpus"])
        elif message["did"] == "end" and message["number"] in self._running:
            self._group.trial_ended()
            self._attempt_ended(self._running.pop(message["number"]), message["code"])

    def _say_silent(self) -> None:
        """Print that a process is replaced because it does not answer."""
        write_stderr(
            f"the process that starts trials has not answered for {SILENCE:g} s (is it stopped?): another one takes "
            "its place, and its trials continue from their checkpoints\n"
        )

    def _worker_ended(self, worker: Worker, reason: str = "") -> None:
        """Handle the trials of a process that ended: on a GPU the trial failed, those of a fork server start again."""
        its = [each for each in self._running.values() if each.worker is worker]
        code = self._group.worker_ended(worker)
        for each in its:
            del self._running[each.number]
            if reason and worker.inline:
                each.cause = each.cause or (Status.FAILED, reason)
            if worker.inline or each.cause:
                self._attempt_ended(each, code)
            else:
                self._queue.appendleft(each)
        if self._queue:
            self._group.replace(worker)

    def _attempt_ended(self, each: Running, code: int) -> None:
        """Record how a trial ended, or run it again."""
        seconds = time.monotonic() - each.began
        result = outcome(each, code, seconds)
        if may_pass(result) and each.attempt <= self._settings.retries:
            self._queue.append(Running(number=each.number, job=each.job, attempt=each.attempt + 1))
        else:
            self._done.append(Ended(number=each.number, job=each.job, result=result, ran=True, seconds=seconds))


def all_done(pool: Pool, jobs: Iterable[Job]) -> list[Ended]:
    """Return how each of the jobs ended, in their order."""
    numbers = [pool.submit(job) for job in jobs]
    ended: dict[int, Ended] = {}
    while one := pool.next_done():
        ended[one.number] = one
    return [ended[number] for number in numbers]
