"""What a search is, and the records that it works with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.search.space import Point, Space
from runner.status import Status

USUAL = 20  # points of a search, unless it says how many


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, and how."""

    space: Space
    sampler: dict[str, Any]  # name, seed, and the knobs of the sampler
    pruner: dict[str, Any]  # name, and the knobs of the pruner
    direction: Literal["maximize", "minimize"]
    storage: str | None
    study_name: str
    n_trials: int | None
    n_jobs: int | None
    seeds: tuple[int, ...]  # of the runs that each point's score is the mean of
    max_failure_rate: float

    @property
    def most(self) -> float:
        """Return how many points are to be tried, those of earlier commands included."""
        return self.n_trials or (math.inf if self.sampler["name"] == "grid" else USUAL)

    @property
    def prunes(self) -> bool:
        """Tell whether trials may be ended early."""
        return bool(self.pruner["name"] != "none")


@dataclass(frozen=True)
class Asked:
    """A point that is to be tried, and the trial of the study that it is."""

    trial: int  # its id in the storage
    number: int
    point: Point


@dataclass(frozen=True, kw_only=True)
class Came:
    """What came of one run of a point."""

    folder: str
    status: Status
    score: float  # nan where there is none
    reason: str | None = None


@dataclass(kw_only=True)
class Row:
    """One point in the table of a search."""

    number: int
    words: list[tuple[str, str]]
    state: str
    value: float | None = None
    scores: list[float] = field(default_factory=list)  # by seed
    folders: list[str] = field(default_factory=list)
    reason: str | None = None


def verdict(runs: Sequence[Came]) -> tuple[str, str | None]:
    """Return how the runs of a point count together, and why, where there is no score.

    A run that diverged is a result: the point counts as pruned, so that samplers which learn keep away from it.
    """
    for each in runs:
        if each.status.depends_on_score:
            return "pruned", each.reason
        if not each.status.complete:
            return "fail", each.reason or each.status
        if math.isnan(each.score):
            return "fail", "left no score"
    return "complete", None
