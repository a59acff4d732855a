"""A search run: points are asked for as places become free, and each is told as soon as its runs are over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from runner.search.records import Asked, Came, Search
from runner.search.study import Study
from runner.sweeps.benches import Bench, PoolBench
from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import Ended
from runner.sweeps.pool import Pool
from runner.sweeps.run import told_to_stop
from runner.sweeps.screen import Screen
from runner.tasks.job import Job

FEWEST = 10  # points before a rate of failures says something
Jobs = Callable[[Asked, int], Job]  # (point, seed) -> the checked run of it


@dataclass
class Point:
    """A point on its way: the runs that are over, and the seeds that are left."""

    asked: Asked
    seeds: deque[int]
    runs: dict[int, Came] = field(default_factory=dict)  # by seed
    flying: int = 0
    cut: bool = False  # stopped before its end


class Searching:
    """The loop between a study and a bench."""

    def __init__(self, search: Search, study: Study, jobs: Jobs) -> None:
        self._search, self._study, self._jobs = search, study, jobs
        self._flying: dict[int, tuple[Point, int]] = {}  # number of a run -> its point and seed
        self._waiting: deque[Point] = deque()  # with seeds left
        self.points = self.failed = 0

    def run(self, bench: Bench, told: Sequence[int]) -> None:
        """Search until all points are told, or a signal came, or too many failed."""
        while len(told) < 2:
            while not told and bench.free() and (point := self._next()) is not None:
                self._begin(point, bench)
            if not self._flying:
                return
            if ended := bench.next_done():
                self._over(ended, stopping=bool(told))
            if told:
                bench.stop_all()
                if bench.idle():
                    return

    def _next(self) -> Point | None:
        """Return a point that has a run to begin."""
        while self._waiting:
            if (point := self._waiting.popleft()).seeds:
                return point
        if self.hopeless:
            return None
        asked = self._study.next()
        return None if asked is None else Point(asked, deque(self._search.seeds))

    @property
    def hopeless(self) -> bool:
        """Tell whether more points failed than may."""
        return self.failed > self._search.max_failure_rate * max(self.points, min(FEWEST, self._search.most))

    def _begin(self, point: Point, bench: Bench) -> None:
        """Begin one run of a point. Where points are pruned, its first seed alone says whether there will be others."""
        seed = point.seeds.popleft()
        job = self._jobs(point.asked, seed)
        self._flying[bench.submit(job)] = (point, seed)
        point.flying += 1
        if point.seeds and not self._search.prunes:
            self._waiting.appendleft(point)

    def _over(self, ended: Ended, *, stopping: bool) -> None:
        """Take down one run; tell its point if that was the last."""
        point, seed = self._flying.pop(ended.number)
        point.flying -= 1
        if stopping and not ended.good:
            point.cut = True  # it goes on with the next command
            return
        result = ended.result
        point.runs[seed] = Came(folder=ended.name, status=result.status, score=ended.score, reason=result.reason)
        if not result.status.complete:  # so has the point, whatever the other seeds say
            point.seeds.clear()
        if point.seeds and self._search.prunes:
            self._waiting.appendleft(point)
        if not point.seeds and not point.flying and not point.cut:
            self.points += 1
            runs = [point.runs[each] for each in self._search.seeds if each in point.runs]
            self.failed += self._study.tell(point.asked, runs) == "fail"


def search_here(searching: Searching, knobs: Knobs, screen: Screen, like: Job, most: int | None) -> int:
    """Search with our launcher, `most` runs at once; return the exit code if a signal ended it, else 0."""
    with Pool(knobs, like=like) as pool, told_to_stop() as told, closing(screen):
        searching.run(PoolBench(pool, screen, most), told)
    return 128 + told[0] if told else 0
