"""The loop of a search: start points while the launcher has room, and report to the study how each point ended."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from runner.engine.interruption import collected
from runner.engine.saving.folder import Result
from runner.search.records import RunResult, Search, StudyTrial, mean_score
from runner.search.study import Study
from runner.status import Status
from runner.sweeps.display import Display
from runner.sweeps.launcher import Launcher, next_done
from runner.sweeps.objectives import other_values
from runner.sweeps.outcome import Ended, folder_of
from runner.sweeps.places import Places
from runner.sweeps.stop_rules import Stopper
from runner.tasks.job import Job

# Fewest points for which a failure rate means something
_FEWEST = 10
# (point, seed) -> job of the run
_MakeJob = Callable[[StudyTrial, int], Job]


@dataclass
class _Point:
    """A started point: the runs that ended, and the seeds that are left."""

    asked: StudyTrial
    all_seeds: tuple[int, ...]
    seeds: deque[int]
    runs: dict[int, RunResult] = field(default_factory=dict)  # by seed
    folders: list[Path] = field(default_factory=list)  # of these runs
    running: int = 0
    was_stopped: bool = False


class SearchLoop:
    """Runs the points of a study with a launcher. Points that are the same run are run once."""

    def __init__(
        self, search: Search, study: Study, jobs: _MakeJob, places: Places, stopper: Stopper | None = None
    ) -> None:
        """Prepare for a study; the `stopper` knows the points that have ended, and says when no other one begins."""
        self._search, self._study, self._jobs, self._places = search, study, jobs, places
        self._stopper = stopper
        self._most = math.inf if search.n_jobs is None else search.n_jobs
        # folder of a run -> points and seeds that share it
        self._running: dict[str, list[tuple[_Point, int]]] = {}
        # Points with seeds that have not been started
        self._waiting: deque[_Point] = deque()
        self.points = self.failed = 0
        self.interrupted: list[Result] = []  # of runs that a signal ended which this process did not get

    def run(self, launcher: Launcher, display: Display) -> int:
        """Search until all points ended, a signal arrives or too many points failed; return the signal, 0 for none."""
        with closing(launcher), collected() as signals, closing(display):
            while len(signals) < 2:
                while not signals and self._has_room(launcher) and (point := self._next_point()) is not None:
                    self._begin(point, launcher)
                if not self._running:
                    break
                if ended := next_done(launcher, display, signals, more=self._runs_to_come()):
                    for point, seed in self._running.pop(str(folder_of(ended.job))):
                        self._run_ended(point, seed, ended, stopping=bool(signals))
                if signals and launcher.idle():
                    break
        return signals[0] if signals else 0

    @property
    def too_many_failed(self) -> bool:
        """True if more points failed than `max_failure_rate` allows."""
        return self.failed > self._search.max_failure_rate * max(self.points, min(_FEWEST, self._search.max_points))

    def _runs_to_come(self) -> int:
        """Return how many runs have not been given to the launcher, at most; pruned points need fewer."""
        left = self._study.to_come * len(self._search.seeds)
        started = {id(point): point for points in self._running.values() for point, _ in points}
        started |= {id(point): point for point in self._waiting}
        return left + sum(len(point.seeds) for point in started.values())

    def _has_room(self, launcher: Launcher) -> bool:
        return len(self._running) < self._most and launcher.free() > 0

    def _next_point(self) -> _Point | None:
        """Return a point that has a run to begin."""
        while self._waiting:
            if (point := self._waiting.popleft()).seeds:
                return point
        if self.too_many_failed or (self._stopper and self._stopper.reason()):
            return None
        asked = self._study.ask()
        if asked is None:
            return None
        seeds = asked.seeds or self._search.seeds
        return _Point(asked, seeds, deque(seeds))

    def _begin(self, point: _Point, launcher: Launcher) -> None:
        """Begin one run of a point. Where points are pruned, its first seed alone decides whether others follow."""
        seed = point.seeds.popleft()
        [job] = self._places.settled([self._jobs(point.asked, seed)])
        folder = str(folder_of(job))
        if folder not in self._running:
            launcher.submit(job)
        self._running.setdefault(folder, []).append((point, seed))
        point.running += 1
        if point.seeds and not self._search.prunes:
            self._waiting.appendleft(point)

    def _run_ended(self, point: _Point, seed: int, ended: Ended, *, stopping: bool) -> None:
        """Record one run; after the last run of its point, report the point to the study."""
        point.running -= 1
        if not ended.has_result and (stopping or ended.result.status is Status.INTERRUPTED):
            # The next command continues this point
            point.was_stopped = True
            point.seeds.clear()
            self.interrupted += [] if stopping else [ended.result]
            return
        result = ended.result
        if self._stopper and ended.has_result:
            self._stopper.training_ended()
        point.folders.append(folder_of(ended.job))
        point.runs[seed] = RunResult(
            folder=ended.name,
            status=result.status,
            score=ended.score,
            reason=result.reason,
            data=result.data[-1] if result.data else None,
        )
        # One incomplete run decides the state of the point, so the other seeds need not run
        if not result.status.complete:
            point.seeds.clear()
        if point.seeds and self._search.prunes:
            self._waiting.appendleft(point)
        if not point.seeds and not point.running and not point.was_stopped:
            self.points += 1
            runs = [point.runs[each] for each in point.all_seeds if each in point.runs]
            is_complete = all(each.status.complete for each in runs)
            others = other_values(self._search.objectives, point.folders) if is_complete else ()
            state = self._study.tell(point.asked, runs, others)
            self.failed += state == "fail"
            if self._stopper:
                self._stopper.trial_ended(mean_score(runs, state), failed=state == "fail")
