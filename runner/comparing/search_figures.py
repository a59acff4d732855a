"""Figures of a search: the best score in each range of a knob, trainings without a score, and smaller budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.comparing.figures import label_axes, spread
from runner.comparing.groups import Value, format_value, sort_key
from runner.comparing.verdicts import ComparedRow, Criterion
from runner.engine.figures.picture import figure, new_figure
from runner.search.budgets import best_of

# Buckets of a knob with more values than that
_BUCKETS = 6
# A knob is divided on a logarithmic scale if its largest value is so many times its smallest
_LOG_RATIO = 10.0
# Fewest configurations for isolation plots and simulated budgets, and fewest buckets for shares
_FEWEST, _FEWEST_BUCKETS = 8, 4
# Panels in a row, and most panels
_COLUMNS, _MOST_PANELS = 3, 12
# Budgets that are drawn
_MOST_BUDGETS = 200
# Quantile of the normal distribution for 95 %
_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class _Bucket:
    """The configurations with a knob in one range, or at one value."""

    label: str
    middle: float  # of the range, on the scale of the knob; the place of a value that is no number
    rows: tuple[ComparedRow, ...]

    def best(self, criterion: Criterion) -> float:
        """Return the best mean score, NaN without one."""
        means = [row.mean for row in self.rows if row.scores]
        return math.nan if not means else (max if criterion.larger_is_better else min)(means)

    @property
    def lost(self) -> tuple[int, int]:
        """The number of trainings without a score, and of all."""
        runs = sum(len(row.group.runs) for row in self.rows)
        return runs - sum(len(row.scores) for row in self.rows), runs


def buckets(rows: Sequence[ComparedRow], key: str) -> list[_Bucket]:
    """Return the configurations by the value of a knob: each value, or ranges of equal width if there are many."""
    having = [row for row in rows if key in row.group.values]
    different = sorted({row.group.values[key] for row in having}, key=sort_key)
    if len(different) <= _BUCKETS or not all(isinstance(value, float) for value in different):
        return [_bucket(format_value(value), place, value, having, key) for place, value in enumerate(different)]
    numbers = [float(value) for value in different]
    log = numbers[0] > 0 and numbers[-1] >= _LOG_RATIO * numbers[0]
    low, high = (math.log(x) if log else x for x in (numbers[0], numbers[-1]))
    found = []
    for place in range(_BUCKETS):
        start, end = (low + (high - low) * (place + more) / _BUCKETS for more in (0, 1))
        inside = [row for row in having if _place(float(row.group.values[key]), low, high, log=log) == place]
        ends = [math.exp(x) if log else x for x in (start, (start + end) / 2, end)]
        found.append(_Bucket(label=f"{ends[0]:.2g} to {ends[2]:.2g}", middle=ends[1], rows=tuple(inside)))
    return found


def _bucket(label: str, place: int, value: Value, rows: Sequence[ComparedRow], key: str) -> _Bucket:
    """Return the configurations with one value."""
    middle = value if isinstance(value, float) else float(place)
    return _Bucket(label=label, middle=middle, rows=tuple(row for row in rows if row.group.values[key] == value))


def _place(value: float, low: float, high: float, *, log: bool) -> int:
    """Return the number of the range of equal width that a value is in."""
    return min(_BUCKETS - 1, int(((math.log(value) if log else value) - low) / (high - low) * _BUCKETS))


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927)."""
    share, scale = count / total, 1 + _Z**2 / total
    half = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2)) / scale
    middle = (share + _Z**2 / (2 * total)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def search_keys(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the knobs that have isolation plots: those that differ, if several do and there are enough rows."""
    keys = list(dict.fromkeys(key for row in rows for key in row.group.values))
    return keys[:_MOST_PANELS] if len(keys) > 1 and len(rows) >= _FEWEST else []


def infeasible_key(rows: Sequence[ComparedRow]) -> str | None:
    """Return the learning rate if trainings without a score can be shown against it, else None."""
    keys = [key for row in rows for key in row.group.values if key.endswith(".lr")]
    lost = any(len(row.scores) < len(row.group.runs) for row in rows)
    return keys[0] if keys and lost and len(buckets(rows, keys[0])) >= _FEWEST_BUCKETS else None


def has_budgets(rows: Sequence[ComparedRow]) -> bool:
    """True if there are enough configurations to simulate smaller budgets."""
    return len(rows) >= _FEWEST and any(row.scores for row in rows)


@figure("svg")
def draw_isolation(rows: Sequence[ComparedRow], criterion: Criterion) -> Any:
    """Draw for each knob the best mean score in each range, whatever the others are, with the number of trials."""
    keys = search_keys(rows)
    down = -(-len(keys) // _COLUMNS)
    sheet = new_figure(10, 3.2 * down, layout="constrained")
    panels = list(sheet.subplots(down, min(_COLUMNS, len(keys)), squeeze=False).flat)
    for axes, key in zip(panels, keys, strict=False):
        found = buckets(rows, key)
        places, best = range(len(found)), [each.best(criterion) for each in found]
        axes.plot(places, best, marker="o", color="black", linewidth=1.0)
        for place, each, height in zip(places, found, best, strict=True):
            if not math.isnan(height):
                axes.annotate(
                    f"n={len(each.rows)}", (place, height), fontsize=7, xytext=(0, 5), textcoords="offset points"
                )
        axes.set_xticks(places, [each.label for each in found], rotation=30, ha="right", fontsize=7)
        axes.margins(0.1, 0.2)
        label_axes(axes, xlabel=key, ylabel=f"best {criterion.metric}")
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    return sheet


@figure("svg")
def draw_infeasible(rows: Sequence[ComparedRow]) -> Any:
    """Draw the share of trainings without a score against the learning rate, with Wilson's 95 % intervals."""
    key = infeasible_key(rows) or ""
    sheet = new_figure(6, 3.4, layout="constrained")
    axes = sheet.subplots()
    found = [each for each in buckets(rows, key) if each.lost[1]]
    middles = [each.middle for each in found]
    shares = [lost / runs for lost, runs in (each.lost for each in found)]
    ends = [wilson_interval(*each.lost) for each in found]
    errors = [
        [max(0.0, share - low) for share, (low, _) in zip(shares, ends, strict=True)],
        [max(0.0, high - share) for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    axes.errorbar(middles, shares, yerr=errors, marker="o", color="C3", capsize=3)
    if min(middles) > 0 and max(middles) >= _LOG_RATIO * min(middles):
        axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    label_axes(axes, xlabel=key, ylabel="share of trainings without a score")
    return sheet


@figure("svg")
def draw_budgets(rows: Sequence[ComparedRow], criterion: Criterion) -> Any:
    """Draw the best score of so many configurations drawn at random: median, and 5 to 95 % of all draws."""
    means = [row.mean for row in rows]
    budgets = spread(range(1, len(means) + 1), _MOST_BUDGETS)
    found = [best_of(means, budget, criterion.score) for budget in budgets]
    sheet = new_figure(6, 3.4, layout="constrained")
    axes = sheet.subplots()
    axes.fill_between(budgets, [each.low for each in found], [each.high for each in found], alpha=0.25, color="C0")
    axes.plot(budgets, [each.median for each in found], color="C0")
    label_axes(axes, xlabel="configurations", ylabel=f"best {criterion.metric}")
    return sheet
