"""Curves of a configuration: the mean over its seeds and their spread, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TypeVar

from runner.comparing.groups import Group
from runner.comparing.runs import Run, Series
from runner.comparing.statistics import spread
from runner.comparing.verdicts import FEW

POINTS = 200  # of a curve, at most
RATIO = "ratio/log10/_global"
SKIPPED = 10  # first steps, whose ratio says nothing yet
Item = TypeVar("Item")
COST = ("time/step_ms", "time/examples_per_second", "time/peak_memory_mb")


@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean and standard deviation over seeds at the steps that all of them have; sd is nan below three seeds."""

    steps: list[int]
    mean: list[float]
    sd: list[float]


def band(runs: Sequence[Run], tag: str) -> Band:
    """Return the curve of one tag over the seeds that logged it."""
    curves = [dict(series) for run in runs if (series := run.series(tag))]
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    steps = thinned(shared)
    columns = [[curve[step] for curve in curves] for step in steps]
    sds = [spread(column) if len(column) >= FEW else math.nan for column in columns]
    return Band(steps=steps, mean=[fmean(column) for column in columns], sd=sds)


def thinned(items: Sequence[Item]) -> list[Item]:
    """Return at most so many items, evenly, the last among them."""
    every = -(-len(items) // POINTS) or 1
    return list(items[::-1][::every])[::-1]


def points(run: Run, tag: str) -> Series:
    """Return one run's curve as drawn."""
    return thinned(run.series(tag))


def typical_ratio(group: Group) -> float:
    """Return log10 of update/weights, all weights together: the median over steps and seeds, nan if not probed."""
    found = [value for run in group.complete for step, value in run.series(RATIO) if step > SKIPPED]
    return median(found) if found else math.nan


def cost(group: Group, tag: str) -> float:
    """Return what the steps of a configuration usually cost: the median over laps and seeds; of memory the largest."""
    found = [value for run in group.complete for _, value in run.series(tag)]
    if not found:
        return math.nan
    return max(found) if tag == COST[2] else median(found)


def seconds(group: Group) -> float:
    """Return the usual duration of a configuration's runs."""
    found = [run.result.seconds for run in group.complete]
    return median(found) if found else math.nan


def steps_made(group: Group) -> str:
    """Return how many steps its runs made: one number, or the least and the most."""
    found = sorted({run.result.steps for run in group.complete})
    return "" if not found else str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"
