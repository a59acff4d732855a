"""How the score answers to each hyperparameter, and all of them side by side, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runner.comparing.figures import canvas, plain, svg
from runner.comparing.groups import Value, rank, worded
from runner.comparing.verdicts import Row, Rule

WIDE = 10.0  # ratio of largest to smallest value from which on an axis is logarithmic
GRID = 8  # values of a grid, at most
ACROSS = 3  # panels in a row


def numeric(rows: Sequence[Row]) -> list[str]:
    """Return the hyperparameters that differ and are numbers everywhere they are there; learning rates first."""
    keys = dict.fromkeys(key for row in rows for key in row.group.values)
    found = []
    for key in keys:
        values = {row.group.values[key] for row in rows if key in row.group.values}
        if len(values) > 1 and all(isinstance(value, float) for value in values):
            found.append(key)
    return sorted(found, key=lambda key: (not key.endswith(".lr"), not key.endswith("weight_decay")))


def response(rows: Sequence[Row], rule: Rule) -> bytes:
    """Draw the score over each number that differs: every run, and the mean of the best configuration at each value."""
    keys = numeric(rows)
    down = -(-len(keys) // ACROSS)
    figure = canvas(10 if len(keys) > 1 else 5.5, 3.4 * down)
    panels = figure.subplots(down, min(ACROSS, len(keys)), squeeze=False).flat
    for axes, key in zip(panels, keys, strict=False):
        panel(axes, [row for row in rows if key in row.group.values], key, rule)
    for axes in list(panels)[len(keys) :]:
        axes.set_visible(False)
    return svg(figure)


def panel(axes: Any, rows: Sequence[Row], key: str, rule: Rule) -> None:
    """Draw one hyperparameter."""
    pick = max if rule.larger_is_better else min
    best: dict[float, float] = {}
    for row in rows:
        at = float(row.group.values[key])
        axes.plot([at] * len(row.scores), row.scores.values(), linestyle="", marker="o", alpha=0.5, color="C0")
        if row.scores:
            best[at] = pick(best.get(at, row.mean), row.mean)
    axes.plot(sorted(best), [best[at] for at in sorted(best)], color="black", linewidth=1.2)
    scale(axes, [float(row.group.values[key]) for row in rows])
    lost = [float(row.group.values[key]) for row in rows for _ in range(sum(row.group.fates.values()))]
    axes.plot(lost, [0.02] * len(lost), transform=axes.get_xaxis_transform(), linestyle="", marker="x", color="C3")
    plain(axes, xlabel=key + ("  (x: a run without score)" if lost else ""), ylabel=rule.metric)


def scale(axes: Any, values: Sequence[float]) -> None:
    """Make the axis logarithmic where the values ask for it; a zero among them stands at its left end."""
    positive = [value for value in values if value > 0]
    if not positive or min(values) < 0 or max(positive) < WIDE * min(positive):
        return
    if min(values) == 0:
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.3)
    else:
        axes.set_xscale("log")


def parallel(rows: Sequence[Row], rule: Rule) -> bytes:
    """Draw parallel coordinates: an axis for each hyperparameter that differs, a line for each configuration."""
    from matplotlib import colormaps

    scored = [row for row in rows if row.scores]
    keys = [*dict.fromkeys(key for row in scored for key in row.group.values), rule.metric]
    figure = canvas(max(6.0, 1.6 * len(keys)), 4)
    axes = figure.subplots()
    heights = [places([row.group.values.get(key) for row in scored]) for key in keys[:-1]]
    heights.append(places([row.mean for row in scored], even=0))
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
    return svg(figure)


def places(values: Sequence[Value | None], *, even: int = GRID) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height in [0, 1] of each value on an axis of its own, and the words beside it.

    Words, and up to `even` numbers, stand at equal distances.
    """
    different = sorted(set(values), key=rank)
    numbers = [value for value in different if isinstance(value, float)]
    if len(numbers) < len(different) or len(different) <= max(1, even):
        heights = {value: place / max(1, len(different) - 1) for place, value in enumerate(different)}
    else:
        log = numbers[0] > 0 and numbers[-1] >= WIDE * numbers[0]
        low, high = (math.log(x) if log else x for x in (numbers[0], numbers[-1]))
        heights = {x: ((math.log(x) if log else x) - low) / (high - low) for x in numbers}
    if len(different) > (GRID if even else 2):
        different = [different[0], different[-1]]
    return [heights[value] for value in values], [(heights[value], worded(value)) for value in different]
