"""How the score depends on the hyperparameters: response curves, parallel coordinates, importance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
# Runs that the forest is fitted to
_MOST_FITTED = 1000
# With fewer runs the result is noise
_MIN_RUNS = 30
_MIN_CONFIGURATIONS = 10
_FOLDS = 5
_SHUFFLES = 20
_TREES = 200
# R2 on held-out configurations below which the forest explains nothing
_MIN_R2 = 0.1


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


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of each hyperparameter, or why it was not computed."""

    method: str
    r2: float | None = None  # on held-out configurations
    drops: tuple[tuple[str, float, float], ...] = ()  # key, drop of R2 when it is shuffled, sd over folds and shuffles


def importance(rows: Sequence[ComparedRow]) -> Importance:
    """Return how much of the scores each hyperparameter explains."""
    scored = [row for row in rows if row.scores]
    runs = sum(len(row.scores) for row in scored)
    if runs < _MIN_RUNS or len(scored) < _MIN_CONFIGURATIONS:
        needed = f"{_MIN_RUNS} runs of {_MIN_CONFIGURATIONS} configurations"
        return Importance(method=f"not computed: {runs} scored runs of {len(scored)} configurations; it needs {needed}")
    sample = _sample(scored)
    fitted = sum(map(len, sample.values()))
    method = (
        f"permutation importance of a random forest ({_TREES} trees), fitted to "
        f"{runs if fitted == runs else f'{fitted} of {runs}'} runs of "
        f"{len(scored) if len(sample) == len(scored) else f'{len(sample)} of {len(scored)}'} "
        f"configurations: the drop of R2 on held-out ones ({_FOLDS} folds) when one is shuffled; "
        "adaptive samplers (tpe, gp) bias it"
    )
    return _cross_validate([row for number, row in enumerate(scored) if number in sample], sample, method)


def _sample(scored: Sequence[ComparedRow]) -> dict[int, list[float]]:
    """Return the scores by place of configuration, of so many at equal distances that few enough are fitted."""
    places = spread(range(len(scored)), _MOST_FITTED)
    most = max(1, _MOST_FITTED // len(places)) if sum(len(row.scores) for row in scored) > _MOST_FITTED else None
    return {place: list(scored[place].scores.values())[:most] for place in places}


def _cross_validate(scored: Sequence[ComparedRow], sample: Mapping[int, list[float]], method: str) -> Importance:
    """Cross-validate over configurations, so that no configuration has seeds in both parts."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GroupKFold

    keys = list(dict.fromkeys(key for row in scored for key in row.group.values))
    columns = _as_numbers(scored, keys)
    x = np.array([line for scores, line in zip(sample.values(), columns, strict=True) for _ in scores])
    y = np.array([score for scores in sample.values() for score in scores])
    unit = np.array([place for place, scores in enumerate(sample.values()) for _ in scores])
    r2, drops = [], []
    for train, left_out in GroupKFold(_FOLDS, shuffle=True, random_state=0).split(x, y, unit):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(x[train], y[train])
        r2.append(forest.score(x[left_out], y[left_out]))
        shuffled = permutation_importance(forest, x[left_out], y[left_out], n_repeats=_SHUFFLES, random_state=0)
        drops.append(shuffled.importances)
    mean = float(np.mean(r2))
    if not mean >= _MIN_R2:
        return Importance(
            method=f"{method}; R2 {mean:.2f}: the forest predicts nothing, so no importance is shown", r2=mean
        )
    joined = np.concatenate(drops, axis=1)
    found = [(key, float(line.mean()), float(line.std())) for key, line in zip(keys, joined, strict=True)]
    return Importance(method=method, r2=mean, drops=tuple(sorted(found, key=lambda item: -item[1])))


def _as_numbers(rows: Sequence[ComparedRow], keys: Sequence[str]) -> list[list[float]]:
    """Return the values of each configuration as numbers; text and missing values become their rank."""
    codes = {key: _codes({row.group.values.get(key) for row in rows}) for key in keys}
    return [[codes[key][row.group.values.get(key)] for key in keys] for row in rows]


def _codes(values: Iterable[Value | None]) -> dict[Value | None, float]:
    """Return for each value a number that trees can split on."""
    different = sorted(values, key=sort_key)
    if all(isinstance(each, float) for each in different):
        return {each: float(each) for each in different if each is not None}
    return {each: float(place) for place, each in enumerate(different)}


@figure("svg")
def draw_importance(found: Importance) -> Any:
    """Draw the importance of each hyperparameter."""
    sheet = new_figure(7, 1 + 0.3 * len(found.drops), layout="constrained")
    axes = sheet.subplots()
    keys, means, sds = zip(*found.drops, strict=True)
    axes.barh(keys, means, xerr=sds, color="C0", ecolor="0.3")
    axes.invert_yaxis()
    label_axes(axes, xlabel=f"drop of R2 when shuffled (R2 {found.r2:.2f}); lines: one sd over folds and shuffles")
    return sheet
