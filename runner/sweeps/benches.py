"""Where a search makes its runs: our launcher, one by one, or one of Hydra's, in batches."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from runner.sweeps.outcome import Ended, folder_of
from runner.sweeps.pool import PAUSE, Pool
from runner.sweeps.screen import Screen
from runner.tasks.job import Job


class Bench(Protocol):
    """Where runs are made."""

    def free(self) -> bool:
        """Tell whether another run could begin now."""

    def submit(self, job: Job) -> int:
        """Take a run and return its number."""

    def next_done(self) -> Ended | None:
        """Return a run that is over; None if there is none yet."""

    def stop_all(self) -> None:
        """Have what runs save itself and end."""

    def idle(self) -> bool:
        """Tell whether nothing runs, or is over and not yet taken."""


class PoolBench:
    """Our launcher: runs begin and end one by one. Points that are the same run are run once."""

    def __init__(self, pool: Pool, screen: Screen, most: int | None) -> None:
        self._pool, self._screen, self._most = pool, screen, most
        self._numbers = itertools.count()
        self._same: dict[str, list[int]] = {}  # folder -> the numbers that wait for it
        self._done: deque[Ended] = deque()

    def free(self) -> bool:
        """Tell whether a place is free."""
        if self._most is not None and len(self._same) >= self._most:
            return False
        return self._pool.idle() or self._pool.free() > 0

    def submit(self, job: Job) -> int:
        """Run a job, or wait for the same one."""
        number, folder = next(self._numbers), str(folder_of(job))
        if folder not in self._same:
            self._pool.submit(job)
        self._same.setdefault(folder, []).append(number)
        return number

    def next_done(self) -> Ended | None:
        """Return a run that is over."""
        if not self._done and (ended := self._pool.next_done(PAUSE)):
            self._screen.over(ended)
            for number in self._same.pop(str(folder_of(ended.job))):
                self._done.append(replace(ended, number=number))
        self._screen.look(self._pool)
        return self._done.popleft() if self._done else None

    def stop_all(self) -> None:
        """End what runs."""
        self._pool.stop_all()

    def idle(self) -> bool:
        """Tell whether nothing is left."""
        return self._pool.idle() and not self._done


class BatchBench:
    """One of Hydra's launchers: runs are collected, begun together, and waited for together."""

    def __init__(self, launch: Callable[[Sequence[Job]], Sequence[Ended]], most: int) -> None:
        self._launch, self._most = launch, most
        self._batch: list[Job] = []
        self._count = 0
        self._done: deque[Ended] = deque()

    def free(self) -> bool:
        """Tell whether the batch has room."""
        return len(self._batch) < self._most and not self._done

    def submit(self, job: Job) -> int:
        """Put a job into the batch."""
        self._batch.append(job)
        self._count += 1
        return self._count - 1

    def next_done(self) -> Ended | None:
        """Run the batch, if nothing of the one before is left, and return a run of it."""
        if not self._done and self._batch:
            first = self._count - len(self._batch)
            different = {str(folder_of(job)): job for job in self._batch}
            ended = dict(zip(different, self._launch(list(different.values())), strict=True))
            for number, job in enumerate(self._batch, first):
                self._done.append(replace(ended[str(folder_of(job))], number=number))
            self._batch = []
        return self._done.popleft() if self._done else None

    def stop_all(self) -> None:
        """Forget the batch."""
        self._batch = []

    def idle(self) -> bool:
        """Tell whether nothing is left."""
        return not self._batch and not self._done
