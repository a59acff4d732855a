"""The settings of a search, its points and their results."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.engine.monitor import Monitor
from runner.search.exclusions import Exclusion, is_excluded
from runner.search.refine import RefineSettings
from runner.search.space import Point, Space
from runner.status import Status

_DEFAULT_POINTS = 20
# Samplers that use no results
NON_ADAPTIVE = ("grid", "random", "qmc")


@dataclass(frozen=True, kw_only=True)
class Search:
    """The settings of a search."""

    space: Space
    sampler: dict[str, Any]  # name, seed, and the knobs of the sampler
    pruner: dict[str, Any]  # name, and the knobs of the pruner
    monitor: Monitor
    storage: str | None
    study_name: str
    n_trials: int | None
    n_jobs: int | None
    seeds: tuple[int, ...]  # of the runs of each point; its score is their mean
    max_failure_rate: float
    refine: RefineSettings | None = None  # rounds of single trainings instead of a sampler's points
    initial: tuple[Point, ...] = ()  # tried first; values that are left out are sampled
    exclusions: tuple[Exclusion, ...] = ()  # points that are never tried
    objectives: tuple[tuple[str, bool], ...] = ()  # besides the monitor: name, and True if larger is better
    settings: Mapping[str, Any] = field(default_factory=dict)  # what changes the numbers, at one end of each axis

    def shared_settings(self) -> dict[str, Any]:
        """Return what all points of a study have in common, so that their scores can be compared."""
        others = {"objectives": [name for name, _ in self.objectives]} if self.objectives else {}
        return {"monitor": self.monitor.tag, "seeds": list(self.seeds), "settings": dict(self.settings), **others}

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """The direction of the monitor, and of each other objective."""
        return [self.monitor.direction, *("maximize" if larger else "minimize" for _, larger in self.objectives)]

    @property
    def max_points(self) -> float:
        """The largest number of points, including those of earlier commands."""
        return self.n_trials or (math.inf if self.sampler["name"] == "grid" else _DEFAULT_POINTS)

    @functools.cached_property
    def most_points(self) -> float:
        """The largest number of points that can be tried: a non-adaptive sampler ends when it has tried the space."""
        size = self.space.size() if self.sampler["name"] in NON_ADAPTIVE else math.inf
        if self.exclusions and size < math.inf:
            size = sum(not self.excludes(point) for point in self.space.grid())
        return min(self.max_points, size)

    def excludes(self, point: Point) -> bool:
        """Return True if a point is never tried."""
        return is_excluded(self.space, self.exclusions, point)

    @property
    def prunes(self) -> bool:
        """True if trials may be pruned."""
        return bool(self.pruner["name"] != "none")


@dataclass(frozen=True)
class StudyTrial:
    """A point and its trial in the study."""

    trial: int  # its id in the storage
    number: int
    point: Point
    seeds: tuple[int, ...] = ()  # of its runs; empty: those of the search


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of one run of a point."""

    folder: str
    status: Status
    score: float  # nan if there is none
    reason: str | None = None
    data: str | None = None  # fingerprint of the data that it read last


@dataclass(kw_only=True)
class RankedPoint:
    """One point in the ranking of a search."""

    number: int
    words: list[tuple[str, str]]
    state: str
    value: float | None = None
    values: tuple[float, ...] = ()  # of all objectives, if there are several
    scores: list[float] = field(default_factory=list)  # by seed
    folders: list[str] = field(default_factory=list)
    reason: str | None = None
    # Of a refining search
    fresh: list[float] = field(default_factory=list)  # scores of seeds that did not choose the point
    stage: str = ""  # what its first training was for, or winner or incumbent


def mean_score(runs: Sequence[RunResult], state: str) -> float:
    """Return the score of a point: the mean over its runs, NaN unless the point is complete."""
    return statistics.fmean(each.score for each in runs) if state == "complete" else math.nan


def point_state(runs: Sequence[RunResult], others: Sequence[float] = ()) -> tuple[str, str | None]:
    """Return the state of a point (complete, pruned or fail) from its runs, and the reason unless it is complete.

    A diverged run is a result: the point counts as pruned, so that adaptive samplers avoid it. `others` are its values
    of the objectives besides the monitor.
    """
    for each in runs:
        if each.status.depends_on_score:
            return "pruned", each.reason
        if not each.status.complete:
            return "fail", each.reason or each.status
        if math.isnan(each.score):
            return "fail", "has no score"
    if any(map(math.isnan, others)):
        return "fail", "lacks a value of hydra.sweeper.objectives"
    return "complete", None
