"""A pool of processes for trials: submit as you go, take each result as it comes."""

from __future__ import annotations

import itertools
import select
import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from runner.engine.saving.folder import Result
from runner.errors import ConfigError
from runner.status import Status
from runner.sweeps.channel import Closed, Message
from runner.sweeps.crew import Crew
from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import Ended, begin, finished
from runner.sweeps.running import GRACE, Running, outcome, seconds_left, stop, watch
from runner.sweeps.trial import message_of
from runner.sweeps.workers import Worker
from runner.tasks.job import Job

PAUSE = 0.25  # seconds between two looks at clocks and logs


class Pool:
    """Runs jobs, each in its own process, several at once.

        with Pool(knobs, like=job) as pool:
            number = pool.submit(job)            # returns at once; the job's `folder` is where the trial lies
            ended = pool.next_done(timeout=1.0)  # an Ended, or None: the time is up, or there is nothing left
            pool.stop(number)                    # told to save itself and end: `interrupted`

    A trial that already has a final result in its folder is not run: it comes back with `ran=False`. Whatever a trial
    does to its process costs only itself: `ended.result` holds status and reason, its folder the log. `like` is any of
    the jobs; its plugins and its data are loaded once, for all. No other thread or process may use the pool.
    """

    def __init__(self, knobs: Knobs, *, like: Job) -> None:
        self._knobs, self._crew = knobs, Crew(knobs, like)
        self._numbers = itertools.count()
        self._queue: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._done: deque[Ended] = deque()

    def submit(self, job: Job) -> int:
        """Take a job and return its number; it starts as soon as a worker is free."""
        number = next(self._numbers)
        if result := finished(job):
            self._done.append(Ended(number=number, job=job, result=result, ran=False))
        else:
            self._queue.append(Running(number=number, job=job))
        return number

    def next_done(self, timeout: float | None = None) -> Ended | None:
        """Return the next trial that is over; None if none is so by then (seconds), or if there is none left."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._done and (self._queue or self._running):
            left = PAUSE if until is None else min(PAUSE, until - time.monotonic())
            if left <= 0 and until is not None:
                break
            self._turn(left)
        return self._done.popleft() if self._done else None

    def stop(self, number: int) -> None:
        """Have a trial end: one that waits at once, one that runs by SIGTERM, and by SIGKILL a few seconds later."""
        for each in [each for each in self._queue if each.number == number]:
            self._queue.remove(each)
            result = Result(status=Status.INTERRUPTED, exit=143, reason="stopped before it began")
            self._done.append(Ended(number=number, job=each.job, result=result, ran=False))
        if number in self._running:
            stop(self._running[number], Status.INTERRUPTED, "stopped", GRACE)

    def stop_all(self) -> None:
        """Have what runs end, and forget what waits."""
        self._queue.clear()
        for each in self._running.values():
            stop(each, Status.INTERRUPTED, "stopped", GRACE)

    def idle(self) -> bool:
        """Tell whether nothing waits, runs, or is over and not yet taken."""
        return not (self._queue or self._running or self._done)

    def loaded(self) -> bool:
        """Tell whether the processes are ready for trials."""
        return bool(self._crew.ready)

    def free(self) -> int:
        """Return how many more trials could begin now; none before the processes are ready."""
        return sum(worker.seats for worker in self._crew.ready) - len(self._running) - len(self._queue)

    def waiting(self) -> int:
        """Return how many trials have not begun."""
        return len(self._queue)

    def running(self) -> list[Running]:
        """Return the trials that run now."""
        return list(self._running.values())

    def close(self) -> None:
        """End every process, at once."""
        self._crew.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _turn(self, seconds: float) -> None:
        """Start what can be started, wait for news or the time, and see to the clocks."""
        self._crew.start(len(self._queue))
        self._assign()
        soonest = min((seconds_left(each, self._knobs.timeout) for each in self.running()), default=seconds)
        ready, _, _ = select.select(self._crew.workers, [], [], min(seconds, soonest))
        for worker in ready:
            try:
                for message in worker.receive():
                    self._hear(worker, message)
            except Closed:
                self._lost(worker)
        for each in self.running():
            watch(each, self._knobs.timeout)

    def _assign(self) -> None:
        for worker in self._crew.workers:
            busy = sum(each.worker is worker for each in self._running.values())
            while worker in self._crew.ready and self._queue and busy < worker.seats:
                each = self._queue.popleft()
                each.worker, each.began, busy = worker, time.monotonic(), busy + 1
                self._running[each.number] = each
                begin(each.job)
                worker.run(each.number, self._message(each.job, worker))

    def _message(self, job: Job, worker: Worker) -> Message:
        memory = None if worker.inline else self._knobs.memory  # CUDA maps far more than it uses
        return {"job": message_of(job), "threads": self._knobs.threads, "memory": memory}

    def _hear(self, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["did"] == "load":
            self._crew.loaded(worker, message["gpus"])
        elif message["did"] == "end":
            self._crew.lives()
            self._over(self._running.pop(message["number"]), message["code"])

    def _lost(self, worker: Worker) -> None:
        """See to the trials of a process that is gone: a GPU's took its trial along; a fork server's begin again."""
        its = [each for each in self.running() if each.worker is worker]
        code = self._crew.lost(worker)
        for each in its:
            del self._running[each.number]
            if worker.inline or each.cause:
                self._over(each, code)
            else:
                self._queue.appendleft(each)
        if self._queue:
            self._crew.replace(worker)

    def _over(self, each: Running, code: int) -> None:
        """Take down how a trial ended, or run it again."""
        seconds = time.monotonic() - each.began
        result = outcome(each, code, seconds)
        if result.status.retry and result.exit != ConfigError.exit_code and each.attempt <= self._knobs.retries:
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
