"""Several objectives: the configurations that no other one beats in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from runner.comparing.curves import COST, cost, seconds
from runner.comparing.groups import Group
from runner.comparing.runs import Run
from runner.comparing.score_meaning import check_same_score
from runner.directions import monitor_by_tag
from runner.errors import ConfigError, shown, unknown

_KEY = "task.objectives"
# Costs of which more is better
_LARGER = ("time/examples_per_second",)
_COSTS = ("seconds", "steps", *COST)


@dataclass(frozen=True)
class Objective:
    """A score or a cost of a configuration, with its direction."""

    name: str
    larger_is_better: bool

    def of(self, group: Group, at: str) -> float:
        """Return the mean score over seeds, or the median cost; nan if there is none."""
        if self.name in _COSTS:
            return _cost_of(self.name)(group)
        found = group.scores(self.name, at).values()
        return fmean(found) if found else math.nan

    def rank(self, value: float) -> float:
        """Return a number that is smaller for better values."""
        return -value if self.larger_is_better else value


@dataclass(frozen=True)
class Front:
    """The values of all configurations, and which of them no other one dominates.

    Attributes:
        objectives: The objectives.
        labels: The configurations, the front first, each part by its first objective, the best first.
        values: Of each configuration a value for each objective; nan: it has none and is not on the front.
        size: How many are on the front.

    """

    objectives: tuple[Objective, ...]
    labels: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    size: int


def read_objectives(names: Sequence[str], plugins: Sequence[str] = (), *, key: str = _KEY) -> tuple[Objective, ...]:
    """Return the objectives that somebody names, none without a name; `key` is the setting in errors.

    Raises:
        ConfigError: There is only one, one is there twice, or one is neither a score of the validation nor a cost.
    """
    if names and (len(names) < 2 or len(set(names)) < len(names)):
        raise ConfigError(f"{key}: got {shown(list(names))}, must be two different ones or more")
    return tuple(_objective(name, plugins, key) for name in names)


def _objective(name: str, plugins: Sequence[str], key: str) -> Objective:
    """Return the objective of a name."""
    if name in _COSTS:
        return Objective(name, name in _LARGER)
    if not name.startswith("val/"):
        raise unknown(key, "objective", name, ["val/accuracy", "val/loss", "val/nll", "val/<metric>", *_COSTS])
    return Objective(name, monitor_by_tag(name, plugins, key=key).larger_is_better)


def find_front(groups: Sequence[Group], objectives: Sequence[Objective], at: str, runs: Sequence[Run]) -> Front:
    """Return the front of configurations, whose scores are of their `last` or `best` validation.

    Raises:
        ConfigError: No configuration has one of the objectives, or a loss has several meanings in the runs.
    """
    for each in objectives:
        check_same_score(runs, each.name, key=_KEY)
    values = [tuple(each.of(group, at) for each in objectives) for group in groups]
    for place, each in enumerate(objectives):
        if all(math.isnan(row[place]) for row in values):
            raise ConfigError(f"{_KEY}: got '{each.name}', which no complete run has")
    return front_of([group.label for group in groups], values, objectives)


def front_of(labels: Sequence[str], values: Sequence[tuple[float, ...]], objectives: Sequence[Objective]) -> Front:
    """Return the front of configurations with these values, a row for each label."""
    ranks = [tuple(o.rank(x) for o, x in zip(objectives, row, strict=True)) for row in values]
    best = not_dominated(ranks)
    order = sorted(range(len(labels)), key=lambda n: (n not in best, *(math.inf if r != r else r for r in ranks[n])))
    return Front(tuple(objectives), tuple(labels[n] for n in order), tuple(values[n] for n in order), len(best))


def not_dominated(ranks: Sequence[tuple[float, ...]]) -> set[int]:
    """Return the places of the points that no other one dominates: as small everywhere, and smaller somewhere.

    Equal points do not dominate each other; a point with nan is left out.
    """
    order = sorted((n for n, point in enumerate(ranks) if not any(map(math.isnan, point))), key=lambda n: ranks[n])
    front: dict[int, None] = {}
    # Who dominates a point comes before it, and so does a point of the front that does
    for n in order:
        if not any(_dominates(ranks[m], ranks[n]) for m in front):
            front[n] = None
    return set(front)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return True if a point is as small as another one everywhere, and smaller somewhere."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _cost_of(name: str) -> Callable[[Group], float]:
    """Return the function of a cost."""
    if name == "seconds":
        return seconds
    return _steps_of if name == "steps" else lambda group: cost(group, name)


def _steps_of(group: Group) -> float:
    """Return the mean number of steps of a configuration's runs."""
    found = [run.result.steps for run in group.complete]
    return fmean(found) if found else math.nan
