"""The best score of a search as it went on, and of as many trials drawn from it in another order."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runner.engine.monitor import Monitor
from runner.engine.saving.storage import write_atomic

_BEST_SO_FAR = "best_so_far.csv"
# Budgets that are simulated, at equal distances
_MOST_BUDGETS = 200


class _BestOf(NamedTuple):
    """The best score of some trials drawn without replacement: its mean, and its quantiles."""

    mean: float
    low: float  # 5 %
    median: float
    high: float  # 95 %


def best_of(scores: Sequence[float], count: int, monitor: Monitor) -> _BestOf:
    """Return the best score of `count` of some trials, over all draws; a trial without a score has NaN.

    Nothing is drawn: the best of `count` of n trials is at most the i-th smallest with probability C(i, count) / C(n,
    count). Raises ValueError unless 1 <= count <= n. NaN where a draw without any score has that probability.
    """
    if not 1 <= count <= len(scores):
        raise ValueError(f"{count} of {len(scores)} trials")
    ranks = sorted(monitor.rank(score) for score in scores)
    below = [math.exp(_log_choose(i, count) - _log_choose(len(ranks), count)) for i in range(len(ranks) + 1)]
    shares = [above - under for under, above in itertools.pairwise(below)]
    mean = sum(share * rank for share, rank in zip(shares, ranks, strict=True) if share)

    def quantile(share: float) -> float:
        rank = next(rank for rank, reached in zip(ranks, below[1:], strict=True) if reached >= share - 1e-12)
        return monitor.sign * rank if math.isfinite(rank) else math.nan

    ends = sorted((quantile(0.05), quantile(0.95)))
    return _BestOf(monitor.sign * mean if math.isfinite(mean) else math.nan, ends[0], quantile(0.5), ends[1])


def _log_choose(total: int, count: int) -> float:
    """Return the logarithm of the number of ways to choose `count` of `total`, -inf if there is none."""
    if count > total:
        return -math.inf
    return math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)


def best_so_far(scores: Sequence[float], monitor: Monitor) -> list[float]:
    """Return the best score after each trial, NaN before the first one that has a score."""
    best, found = math.nan, []
    for score in scores:
        best = score if monitor.better(score, best) else best
        found.append(best)
    return found


def write_best_so_far(folder: Path, scores: Sequence[float], monitor: Monitor) -> None:
    """Write `best_so_far.csv` into a sweep: after each trial the best score, and the best of as many random ones.

    Args:
        folder: The folder of the sweep.
        scores: Those of the trials in the order in which they were planned, NaN without one.
        monitor: The score.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trials", monitor.tag, "best", "mean_of_random", "low_5", "median", "high_95"])
    # The time of all is quadratic in the number of trials
    stride = -(-len(scores) // _MOST_BUDGETS)
    for number, (score, best) in enumerate(zip(scores, best_so_far(scores, monitor), strict=True), 1):
        drawn = (
            best_of(scores, number, monitor) if (number - 1) % stride == 0 or number == len(scores) else [math.nan] * 4
        )
        numbers = (score, best, *drawn)
        table.writerow([number, *("" if math.isnan(each) else each for each in numbers)])
    write_atomic(folder / _BEST_SO_FAR, text.getvalue().encode())
