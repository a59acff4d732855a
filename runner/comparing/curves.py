"""Mean curves, cost and update ratio of a configuration over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TypeVar

from runner.comparing.groups import Group
from runner.comparing.runs import Run, Series
from runner.comparing.statistics import sample_sd
from runner.comparing.verdicts import MIN_SEEDS

# Points of a drawn curve; more cannot be seen
_MAX_POINTS = 200
RATIO = "ratio/log10/_global"
# Steps to skip, because the first update ratios are not typical
_WARM_UP = 10
_Item = TypeVar("_Item")
COST = ("time/step_ms", "time/examples_per_second", "time/peak_memory_mb")


@dataclass(frozen=True, kw_only=True)
class _Band:
    """Mean and standard deviation over seeds at the steps that all seeds logged; sd is nan below three seeds."""

    steps: list[int]
    mean: list[float]
    sd: list[float]


def mean_curve(runs: Sequence[Run], tag: str) -> _Band:
    """Return the curve of one tag over the seeds that logged it."""
    curves = [dict(series) for run in runs if (series := run.series(tag))]
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    steps = _thin(shared)
    columns = [[curve[step] for curve in curves] for step in steps]
    sds = [sample_sd(column) if len(column) >= MIN_SEEDS else math.nan for column in columns]
    return _Band(steps=steps, mean=[fmean(column) for column in columns], sd=sds)


def _thin(items: Sequence[_Item]) -> list[_Item]:
    """Return at most `_MAX_POINTS` items, evenly spaced, the last one included."""
    every = -(-len(items) // _MAX_POINTS) or 1
    return list(items[::-1][::every])[::-1]


def thinned_curve(run: Run, tag: str) -> Series:
    """Return one run's curve as the pictures draw it."""
    return _thin(run.series(tag))


def median_update_ratio(group: Group) -> float:
    """Return the median over steps and seeds of log10(update norm / weight norm), nan if it was not probed."""
    found = [value for run in group.complete for step, value in run.series(RATIO) if step > _WARM_UP]
    return median(found) if found else math.nan


def cost(group: Group, tag: str) -> float:
    """Return the median of a cost over all log intervals and seeds; of the peak memory, the maximum."""
    found = [value for run in group.complete for _, value in run.series(tag)]
    if not found:
        return math.nan
    return max(found) if tag == COST[2] else median(found)


def seconds(group: Group) -> float:
    """Return the median duration of a configuration's runs."""
    found = [run.result.seconds for run in group.complete]
    return median(found) if found else math.nan


def step_range(group: Group) -> str:
    """Return the number of steps of the runs: `300`, or `200-300` where it differs."""
    found = sorted({run.result.steps for run in group.complete})
    return "" if not found else str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"
