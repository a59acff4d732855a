"""A pool of processes for trials: submit as you go, take each result as it comes."""

from __future__ import annotations

import itertools
import os
import select
import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from runner.engine.folder import Result
from runner.errors import ConfigError, TrialsFailed
from runner.sweeps.channel import Closed, Message
from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import LOG, Ended, begin, fate, finished, folder_of, saved, settle
from runner.sweeps.trial import message_of
from runner.sweeps.workers import Worker, of_gpu
from runner.tasks.job import Job

GRACE = 4.0  # seconds that a trial told to stop has to save itself
LATE = 1.0  # the same for one that is beyond its time
PAUSE = 0.25  # seconds between two looks at clocks and logs
LONGEST_LOG = 64 << 20  # bytes; a trial that prints more would fill the disk for all
DEATHS = 3  # of fork servers, with no trial ended between, before the sweep gives up
AGAIN = ("failed", "timeout")  # what `retries` is for


@dataclass(kw_only=True)
class Running:
    """A trial that has been submitted."""

    number: int
    job: Job
    attempt: int = 1
    worker: Worker | None = None
    began: float = 0.0  # of this attempt
    cause: tuple[str, str] | None = None  # status and reason, if it is we who end it
    deadline: float = 0.0  # of its ending, once it was told to end


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
        self._knobs, self._like = knobs, like
        self._numbers = itertools.count()
        self._queue: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._done: deque[Ended] = deque()
        self._workers: list[Worker] = []
        self._ready: set[Worker] = set()
        self._deaths = 0

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
            result = Result(status="interrupted", exit=143, reason="stopped before it began")
            self._done.append(Ended(number=number, job=each.job, result=result, ran=False))
        if number in self._running:
            self._stop(self._running[number], "interrupted", "stopped", GRACE)

    def stop_all(self) -> None:
        """Have what runs end, and forget what waits."""
        self._queue.clear()
        for each in self._running.values():
            self._stop(each, "interrupted", "stopped", GRACE)

    def idle(self) -> bool:
        """Tell whether nothing waits, runs, or is over and not yet taken."""
        return not (self._queue or self._running or self._done)

    def loaded(self) -> bool:
        """Tell whether the processes are ready for trials."""
        return bool(self._ready)

    def free(self) -> int:
        """Return how many more trials could begin now; none before the processes are ready."""
        return sum(worker.seats for worker in self._ready) - len(self._running) - len(self._queue)

    def waiting(self) -> int:
        """Return how many trials have not begun."""
        return len(self._queue)

    def running(self) -> list[Running]:
        """Return the trials that run now."""
        return list(self._running.values())

    def close(self) -> None:
        """End every process, at once."""
        for worker in self._workers:
            worker.close()
        self._workers, self._ready = [], set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _turn(self, seconds: float) -> None:
        """Start what can be started, wait for news or the time, and see to the clocks."""
        if not self._workers:
            self._hire(Worker(seats=self._knobs.on_cores, inline=False))
        self._assign()
        ready, _, _ = select.select(self._workers, [], [], seconds)
        for worker in ready:
            try:
                for message in worker.receive():
                    self._hear(worker, message)
            except Closed:
                self._lost(worker)
        for each in self.running():
            self._watch(each)

    def _hire(self, worker: Worker) -> None:
        job = self._like.config
        self._workers.append(worker)
        worker.load(plugins=job["plugins"], data=job["data"], device=job["device"])

    def _assign(self) -> None:
        for worker in self._workers:
            busy = sum(each.worker is worker for each in self._running.values())
            while worker in self._ready and self._queue and busy < worker.seats:
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
            self._ready.add(worker)
            if message["gpus"] and not worker.inline:
                self._to_gpus(worker, message["gpus"])
        elif message["did"] == "end":
            self._deaths = 0
            self._over(self._running.pop(message["number"]), message["code"])

    def _to_gpus(self, server: Worker, gpus: int) -> None:
        """Put workers of GPUs in the place of the fork server, in turn over the GPUs."""
        self._dismiss(server)
        one = ":" in self._like.config["device"]  # a certain GPU
        for number in range(self._knobs.workers or (1 if one else gpus)):
            environment = {} if one else of_gpu(number, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
            self._hire(Worker(seats=1, inline=True, environment=environment))

    def _dismiss(self, worker: Worker) -> int:
        self._workers.remove(worker)
        self._ready.discard(worker)
        return worker.close()

    def _lost(self, worker: Worker) -> None:
        """See to the trials of a process that is gone: a GPU's took its trial along; a fork server's begin again."""
        loaded = worker in self._ready
        code = self._dismiss(worker)
        for each in [each for each in self.running() if each.worker is worker]:
            del self._running[each.number]
            if worker.inline or each.cause:
                self._over(each, code)
            else:
                self._queue.appendleft(each)
        self._deaths += not (worker.inline and loaded)
        if self._deaths >= DEATHS:
            raise TrialsFailed(f"the process that trials come from ended {DEATHS} times ({fate(code)})")
        if worker.inline and self._queue:
            self._hire(worker.successor())

    def _over(self, each: Running, code: int) -> None:
        """Take down how a trial ended, or run it again."""
        seconds = time.monotonic() - each.began
        cut(folder_of(each.job) / LOG)
        result = saved(folder_of(each.job))
        if each.cause or result is None or result.status == "running":
            status, reason = each.cause or ("failed", fate(code))
            result = settle(each.job, status=status, code=exit_code(code), reason=reason, seconds=seconds)
        if result.status in AGAIN and result.exit != ConfigError.exit_code and each.attempt <= self._knobs.retries:
            self._queue.append(Running(number=each.number, job=each.job, attempt=each.attempt + 1))
        else:
            self._done.append(Ended(number=each.number, job=each.job, result=result, ran=True, seconds=seconds))

    def _watch(self, each: Running) -> None:
        """End a trial that is beyond its time, or that does not end, or that prints without end."""
        now = time.monotonic()
        worker = each.worker
        assert worker is not None
        if each.deadline and now > each.deadline:
            worker.kill(each.number, signal.SIGKILL)
        if each.cause is None and self._knobs.timeout and now > each.began + self._knobs.timeout:
            self._stop(each, "timeout", f"took longer than hydra.launcher.timeout={self._knobs.timeout:g} s", LATE)
        log = folder_of(each.job) / LOG
        if each.cause is None and size(log) > LONGEST_LOG:
            self._stop(each, "failed", f"printed more than {LONGEST_LOG >> 20} MB", 0.0)

    def _stop(self, each: Running, status: str, reason: str, grace: float) -> None:
        if each.cause is None and each.worker is not None:
            each.cause, each.deadline = (status, reason), time.monotonic() + grace
            each.worker.kill(each.number, signal.SIGTERM)


def exit_code(code: int) -> int:
    """Return an exit code as a shell gives it: 128 and the number of the signal that killed the process."""
    return code if code >= 0 else 128 - code


def size(path: Path) -> int:
    """Return the bytes of a file, 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def cut(log: Path) -> None:
    """Leave the first megabyte of a log that is too long."""
    if size(log) > LONGEST_LOG:
        os.truncate(log, 1 << 20)


def all_done(pool: Pool, jobs: Iterable[Job]) -> list[Ended]:
    """Return how each of the jobs ended, in their order."""
    numbers = [pool.submit(job) for job in jobs]
    ended: dict[int, Ended] = {}
    while one := pool.next_done():
        ended[one.number] = one
    return [ended[number] for number in numbers]
