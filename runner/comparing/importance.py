"""Importance of the hyperparameters: the share of the variance of the scores that each explains, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.comparing.figures import label_axes
from runner.comparing.groups import Value, sort_key
from runner.comparing.verdicts import ComparedRow
from runner.engine.figures.picture import figure, new_figure
from runner.printing import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

# With fewer the intervals say nothing
_MIN_RUNS = 30
_MIN_CONFIGURATIONS = 10
# So many numbers are levels of their own; more are cut into ranges, one for each 5 configurations
_MOST_LEVELS = 8
_MOST_RANGES = 10
_FEWEST_RANGES = 4
_PER_RANGE = 5
# Fewer differences within the levels than this show no variance
_FEWEST_WITHIN = 3
_RESAMPLES = 2000
# Numbers that a part of the resamples may hold
_MOST_NUMBERS = 4_000_000
_REST = "interactions and noise"


@dataclass(frozen=True)
class Effect:
    """The share of the variance of the scores that belongs to one hyperparameter, in [0, 1]."""

    key: str
    share: float
    low: float  # ends of the 95 % interval
    high: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of each hyperparameter, or why it was not computed."""

    method: str
    effects: tuple[Effect, ...] = ()  # the largest share first, what none of them explains alone last
    warning: str | None = None  # what biases it


def importance(rows: Sequence[ComparedRow], adaptive: Sequence[str] = ()) -> Importance:
    """Return the main effect of each hyperparameter, as the share of the variance of the configurations' mean scores.

    This is the first order of a functional ANOVA. A share can only be told apart from others where the values were
    chosen independently of each other and of the scores.

    Args:
        rows: The configurations.
        adaptive: The names of samplers that chose some of them by the scores of others.
    """
    scored = [row for row in rows if row.scores]
    runs = sum(len(row.scores) for row in scored)
    if runs < _MIN_RUNS or len(scored) < _MIN_CONFIGURATIONS:
        needed = f"{_MIN_RUNS} runs of {_MIN_CONFIGURATIONS} configurations"
        return Importance(method=f"not computed: {runs} scored runs of {len(scored)} configurations; it needs {needed}")
    keys = dict.fromkeys(key for row in scored for key in row.group.values)
    levels = {key: _levels([row.group.values.get(key) for row in scored]) for key in keys}
    kept = {key: found for key, found in levels.items() if len(scored) - 1 - max(found) >= _FEWEST_WITHIN}
    method = (
        f"the share of the variance of the mean scores of {len(scored)} configurations that is the main effect of one "
        f"hyperparameter (functional ANOVA), with 95 % bootstrap intervals ({_RESAMPLES} resamples of the "
        "configurations); 0 in an interval: an effect is not shown"
    )
    if left := [key for key in levels if key not in kept]:
        method += f"; without {', '.join(left)}, which has another value in nearly each configuration"
    if not kept or len({row.mean for row in scored}) < 2:
        return Importance(method=f"not computed: no hyperparameter has few enough values ({counted(runs, 'run')})")
    warning = None
    if adaptive:
        warning = f"the trials were chosen by earlier scores ({', '.join(adaptive)}), which biases the shares"
    return Importance(method=method, effects=_effects(kept, [row.mean for row in scored]), warning=warning)


def _levels(values: Sequence[Value | None]) -> list[int]:
    """Return the level of each value: its own one, or one of several ranges of equally many different numbers."""
    different = sorted(set(values), key=sort_key)
    numbers = [value for value in different if isinstance(value, float)]
    if len(numbers) <= _MOST_LEVELS:
        return [different.index(value) for value in values]
    ranges = max(_FEWEST_RANGES, min(_MOST_RANGES, len(values) // _PER_RANGE))
    others = [value for value in different if not isinstance(value, float)]
    places: dict[Value | None, int] = {value: place for place, value in enumerate(others)}
    places |= {value: len(others) + place * ranges // len(numbers) for place, value in enumerate(numbers)}
    return [places[value] for value in values]


def _effects(levels: dict[str, list[int]], means: Sequence[float]) -> tuple[Effect, ...]:
    """Return the effect of each key, with intervals that are moved by the bias of the resamples."""
    import numpy as np

    scores = np.array(means)
    draws = np.random.default_rng(0).multinomial(len(scores), np.full(len(scores), 1 / len(scores)), _RESAMPLES)
    parts = max(1, len(draws) * len(scores) // _MOST_NUMBERS)
    weights = [np.ones((1, len(scores))), *np.array_split(draws.astype(float), parts)]
    shares = np.concatenate([_shares(list(levels.values()), scores, each) for each in weights])
    # A share below 0 is 0, else the rest would be too large
    shares = np.column_stack([shares, 1 - shares.clip(0).sum(axis=1)])
    found, drawn = shares[0], shares[1:]
    # A resample repeats configurations, which look like effects
    drawn = drawn - (np.nanmean(drawn, axis=0) - found)
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0).clip(0, 1)
    columns = zip([*levels, _REST], found.clip(0, 1).tolist(), low.tolist(), high.tolist(), strict=True)
    *effects, rest = [Effect(*each) for each in columns]
    return (*sorted(effects, key=lambda each: -each.share), rest)


def _shares(levels: Sequence[Sequence[int]], scores: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Return the share of each key (N, keys) for each weighting (N, configurations): omega squared, without bias.

    The mean square within the levels is what differences between levels have by chance.
    """
    import numpy as np

    count = weights.sum(axis=1)
    centered = scores - (weights @ scores / count)[:, None]
    total = (weights * centered**2).sum(axis=1)
    found = []
    for each in levels:
        is_at = np.eye(max(each) + 1)[np.array(each)]
        size = weights @ is_at
        sums = (weights * centered) @ is_at
        between = (sums**2 / np.where(size > 0, size, 1)).sum(axis=1)
        freedom = (size > 0).sum(axis=1) - 1
        within = (total - between) / np.maximum(1, count - freedom - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((between - freedom * within) / (total + within))
    return np.stack(found, axis=1)


@figure("svg")
def draw_importance(found: Importance) -> Any:
    """Draw the share of each hyperparameter with its interval."""
    sheet = new_figure(7, 1 + 0.3 * len(found.effects), layout="constrained")
    axes = sheet.subplots()
    effects = [each for each in found.effects if not math.isnan(each.low)]
    shares = [each.share for each in effects]
    # A share that was clipped may be outside of its interval
    ends = [
        [max(0.0, each.share - each.low) for each in effects],
        [max(0.0, each.high - each.share) for each in effects],
    ]
    colors = ["0.7" if each.key == _REST else "C0" for each in effects]
    axes.barh([each.key for each in effects], shares, xerr=ends, color=colors, ecolor="0.3", capsize=2)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    label_axes(axes, xlabel="share of the variance of the scores; lines: 95 % intervals")
    return sheet
