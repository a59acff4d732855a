"""How the score depends on the hyperparameters: response curves and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runner.comparing.figures import label_axes, spread
from runner.comparing.groups import Value, format_value, sort_key
from runner.comparing.verdicts import ComparedRow, Criterion
from runner.engine.figures.picture import figure, new_figure

# An axis is logarithmic if its largest value is at least this many times its smallest
_LOG_AXIS_RATIO = 10.0
# Up to this many values are drawn at equal distances
_MAX_EVEN = 8
# Panels in a row
_COLUMNS = 3
# Dots and line segments of a panel, and lines of parallel coordinates
MOST_DOTS = 2000
_MOST_SEGMENTS = 500
MOST_LINES = 300


def numeric_keys(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the hyperparameters that differ and have only numbers as values; learning rates first."""
    keys = dict.fromkeys(key for row in rows for key in row.group.values)
    found = []
    for key in keys:
        values = {row.group.values[key] for row in rows if key in row.group.values}
        if len(values) > 1 and all(isinstance(value, float) for value in values):
            found.append(key)
    return sorted(found, key=lambda key: (not key.endswith(".lr"), not key.endswith("weight_decay")))


@figure("svg")
def draw_response(rows: Sequence[ComparedRow], criterion: Criterion) -> Any:
    """Draw the score against each numeric hyperparameter: every run, and the best mean at each value."""
    keys = numeric_keys(rows)
    down = -(-len(keys) // _COLUMNS)
    sheet = new_figure(10 if len(keys) > 1 else 5.5, 3.4 * down, layout="constrained")
    panels = sheet.subplots(down, min(_COLUMNS, len(keys)), squeeze=False).flat
    for axes, key in zip(panels, keys, strict=False):
        _panel(axes, [row for row in rows if key in row.group.values], key, criterion)
    for axes in list(panels)[len(keys) :]:
        axes.set_visible(False)
    return sheet


def _panel(axes: Any, rows: Sequence[ComparedRow], key: str, criterion: Criterion) -> None:
    """Draw one hyperparameter."""
    pick = max if criterion.larger_is_better else min
    best: dict[float, float] = {}
    for row in rows:
        if row.scores:
            at = float(row.group.values[key])
            best[at] = pick(best.get(at, row.mean), row.mean)
    dots = spread([(float(row.group.values[key]), score) for row in rows for score in row.scores.values()], MOST_DOTS)
    axes.plot([at for at, _ in dots], [score for _, score in dots], linestyle="", marker="o", alpha=0.5, color="C0")
    line = spread(sorted(best), _MOST_SEGMENTS)
    axes.plot(line, [best[at] for at in line], color="black", linewidth=1.2)
    _scale(axes, [float(row.group.values[key]) for row in rows])
    lost = [float(row.group.values[key]) for row in rows for _ in range(sum(row.group.failures.values()))]
    lost = spread(sorted(lost), MOST_DOTS)
    axes.plot(lost, [0.02] * len(lost), transform=axes.get_xaxis_transform(), linestyle="", marker="x", color="C3")
    label_axes(axes, xlabel=key + ("  (x: a run without a score)" if lost else ""), ylabel=criterion.metric)


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Make the axis logarithmic if the values span a factor of ten; a zero is drawn at its left end."""
    positive = [value for value in values if value > 0]
    if not positive or min(values) < 0 or max(positive) < _LOG_AXIS_RATIO * min(positive):
        return
    if min(values) == 0:
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.3)
    else:
        axes.set_xscale("log")


@figure("svg")
def draw_parallel(rows: Sequence[ComparedRow], criterion: Criterion) -> Any:
    """Draw parallel coordinates: an axis per hyperparameter that differs, a line per configuration, of the best."""
    from matplotlib import colormaps

    scored = [row for row in rows if row.scores][:MOST_LINES]
    keys = [*dict.fromkeys(key for row in scored for key in row.group.values), criterion.metric]
    sheet = new_figure(max(6.0, 1.6 * len(keys)), 4, layout="constrained")
    axes = sheet.subplots()
    heights = [_heights([row.group.values.get(key) for row in scored]) for key in keys[:-1]]
    heights.append(_heights([row.mean for row in scored], even=0))
    last = heights[-1]
    for number in range(len(scored)):
        line = [column[0][number] for column in heights]
        axes.plot(range(len(keys)), line, color=colormaps["viridis"](last[0][number]), alpha=0.7)
    for place, (_, ticks) in enumerate(heights):
        axes.axvline(place, color="0.4", linewidth=0.8)
        for height, word in ticks:
            axes.annotate(word, (place, height), fontsize=8, xytext=(3, 3), textcoords="offset points")
    axes.set_xticks(range(len(keys)), keys, rotation=15, fontsize=8)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return sheet


def _heights(values: Sequence[Value | None], *, even: int = _MAX_EVEN) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height in [0, 1] of each value on its axis, and the labelled ticks.

    Text, and up to `even` numbers, are drawn at equal distances.
    """
    different = sorted(set(values), key=sort_key)
    numbers = [value for value in different if isinstance(value, float)]
    if len(numbers) < len(different) or len(different) <= max(1, even):
        heights = {value: place / max(1, len(different) - 1) for place, value in enumerate(different)}
    else:
        log = numbers[0] > 0 and numbers[-1] >= _LOG_AXIS_RATIO * numbers[0]
        low, high = (math.log(x) if log else x for x in (numbers[0], numbers[-1]))
        heights = {x: ((math.log(x) if log else x) - low) / (high - low) for x in numbers}
    if len(different) > (_MAX_EVEN if even else 2):
        different = [different[0], different[-1]]
    return [heights[value] for value in values], [(heights[value], format_value(value)) for value in different]
