"""The trials of a grid as ranked points: those that differ in their seed only are one point."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from runner.engine.monitor import Monitor
from runner.errors import one_line
from runner.search.records import RankedPoint
from runner.sweeps.outcome import Ended
from runner.sweeps.swept import values_of


def grid_points(ended: Sequence[Ended], swept: Sequence[str], monitor: Monitor) -> list[RankedPoint]:
    """Return the points of a grid, the best mean score first and points without a score last.

    A point with a trial that has no score has none itself; its number is that of its first trial.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Ended]] = {}
    for each in sorted(ended, key=lambda each: each.number):
        values = values_of(each.job)
        key = tuple((key, values[key]) for key in swept if key != "seed" and key in values)
        groups.setdefault(key, []).append(each)
    rows = [_point(words, members) for words, members in groups.items()]
    return sorted(rows, key=lambda row: (-monitor.rank(math.nan if row.value is None else row.value), row.number))


def _point(words: Sequence[tuple[str, str]], members: Sequence[Ended]) -> RankedPoint:
    """Return the trials of one point as a row."""
    lost = next((each for each in members if math.isnan(each.score) or not each.result.status.complete), None)
    scores = [each.score for each in members if not math.isnan(each.score)]
    return RankedPoint(
        number=members[0].number,
        words=list(words),
        state="complete" if lost is None else str(lost.result.status),
        value=statistics.fmean(scores) if lost is None else None,
        scores=scores,
        folders=[each.name for each in members],
        reason=None if lost is None or lost.result.reason is None else one_line(str(lost.result.reason)),
    )
