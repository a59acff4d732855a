"""The pictures of a comparison, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from runner.comparing.curves import RATIO, mean_curve, thinned_curve
from runner.comparing.runs import Series
from runner.comparing.statistics import ALPHA
from runner.comparing.verdicts import ComparedRow, Criterion
from runner.engine.figures.picture import figure, new_figure

# Configurations with a color of their own; the others are gray
_MAX_COLORS = 8
_GRAY = "0.75"
_PANELS = {
    "val/accuracy": "validation accuracy",
    "val/loss": "validation loss",
    "train/loss_average": "training loss, moving average",
    RATIO: "update / weights, log10 (-3 is usual)",
}
_NLL_PANEL = ("val/nll", "validation negative log-likelihood")
# Configurations in a picture, the baseline and the best; and dots or single runs of one configuration
MOST_DRAWN = 30
_MOST_DOTS = 200
_MOST_SINGLE = 20
# Characters of a label that fit beside a picture
_MAX_LABEL = 44
# Upper limit of a loss axis as a multiple of the largest first loss
_LOSS_HEADROOM = 1.5
_Item = TypeVar("_Item")


def label_axes(axes: Any, **words: str) -> None:
    """Label the axes, draw a grid and remove the box."""
    axes.set(**words)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _truncate(label: str) -> str:
    """Return a label that fits beside a picture."""
    return label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 3]}..."


def _colors(rows: Sequence[ComparedRow], criterion: Criterion) -> dict[str, str]:
    """Return a color for each label: black for the baseline, one each for the best, gray for the rest."""
    sign = -1 if criterion.larger_is_better else 1
    others = [row for row in rows if not row.is_baseline]
    best = sorted(others, key=lambda row: (math.isnan(row.mean), sign * row.mean))[: _MAX_COLORS - 1]
    # In the order of the table
    best_labels = {row.group.label for row in best}
    chosen = [row for row in others if row.group.label in best_labels]
    return {
        **dict.fromkeys((row.group.label for row in rows), _GRAY),
        **{row.group.label: f"C{number}" for number, row in enumerate(chosen)},
        **{row.group.label: "black" for row in rows if row.is_baseline},
    }


@figure("svg")
def draw_curves(rows: Sequence[ComparedRow], criterion: Criterion, scores: Sequence[str]) -> Any:
    """Draw the learning curves: mean over seeds, a band of one standard deviation, failed runs dashed to their end.

    The negative log-likelihood takes the place of the validation loss if that is not among the shared `scores`.
    """
    more, rows = len(rows) - len(rows[:MOST_DRAWN]), rows[:MOST_DRAWN]
    sheet, color = new_figure(10, 7, layout="constrained"), _colors(rows, criterion)
    panels = [each if each[0] != "val/loss" or each[0] in scores else _NLL_PANEL for each in _PANELS.items()]
    for axes, (tag, name) in zip(sheet.subplots(2, 2).flat, panels, strict=True):
        for row in sorted(rows, key=lambda row: color[row.group.label] != _GRAY):
            _draw_curve(axes, row, tag, color[row.group.label])
        label_axes(axes, xlabel="step", ylabel=name)
        if "loss" in tag or tag == _NLL_PANEL[0]:
            _limit_loss_axis(axes, rows, tag)
    _draw_legend(sheet, rows, color, more)
    return sheet


def _draw_curve(axes: Any, row: ComparedRow, tag: str, color: str) -> None:
    """Draw one configuration."""
    mean = mean_curve(row.group.complete, tag)
    axes.plot(mean.steps, mean.mean, color=color, linewidth=1.6, marker="o" if len(mean.steps) < 3 else "")
    if len(row.group.complete) > 1 and any(math.isnan(sd) for sd in mean.sd):
        for run in row.group.complete[:_MOST_SINGLE]:
            axes.plot(*_steps_and_values(thinned_curve(run, tag)), color=color, linewidth=0.5)
    else:
        low, high = ([m + sign * sd for m, sd in zip(mean.mean, mean.sd, strict=True)] for sign in (-1, 1))
        axes.fill_between(mean.steps, low, high, color=color, alpha=0.15, linewidth=0)
    for run in [run for run in row.group.runs if not run.result.status.complete][:_MOST_SINGLE]:
        if curve := thinned_curve(run, tag):
            axes.plot(*_steps_and_values(curve), color=color, linewidth=0.8, linestyle="--")
            axes.plot(*curve[-1], color=color, marker="x", markersize=6)


def spread(values: Sequence[_Item], most: int) -> list[_Item]:
    """Return all values, or so many at equal distances in their order, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def _steps_and_values(curve: Series) -> tuple[list[int], list[float]]:
    """Return the steps and the numbers of a curve."""
    return [step for step, _ in curve], [value for _, value in curve]


def _limit_loss_axis(axes: Any, rows: Sequence[ComparedRow], tag: str) -> None:
    """Limit the loss axis, so that a diverged run does not flatten the others."""
    firsts = [run.series(tag)[0][1] for row in rows for run in row.group.complete if run.series(tag)]
    firsts = [value for value in firsts if math.isfinite(value)]
    if firsts and axes.get_ylim()[1] > _LOSS_HEADROOM * max(firsts):
        axes.set_ylim(0, _LOSS_HEADROOM * max(firsts))


def _draw_legend(sheet: Any, rows: Sequence[ComparedRow], color: dict[str, str], left_out: int) -> None:
    """Name the colored configurations under a figure, and count the gray ones and those that are not drawn."""
    from matplotlib.lines import Line2D

    shown = [row.group for row in rows if color[row.group.label] != _GRAY]
    handles = [Line2D([], [], color=color[group.label], label=_truncate(group.short)) for group in shown]
    if more := len(rows) - len(shown):
        handles.append(Line2D([], [], color=_GRAY, label=f"{more} more"))
    if left_out:
        handles.append(Line2D([], [], linestyle="", label=f"{left_out} worse ones are not drawn"))
    sheet.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


@figure("svg")
def draw_seeds(rows: Sequence[ComparedRow], criterion: Criterion) -> Any:
    """Draw the score of each seed, and the differences from the baseline with their intervals."""
    rows = rows[:MOST_DRAWN]
    sheet = new_figure(10, 1.2 + 0.35 * len(rows), layout="constrained")
    scores, gaps = sheet.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        dots = spread(sorted(row.scores.values()), _MOST_DOTS)
        scores.plot(dots, [place] * len(dots), linestyle="", marker="o", alpha=0.6, color="C0")
        scores.plot([row.mean], [place], linestyle="", marker="|", markersize=18, color="black")
        interval = row.paired
        if not row.is_baseline and math.isfinite(interval.mean):
            gaps.plot([interval.mean], [place], marker="o", color="C0" if row.p_holm < ALPHA else "0.5")
            gaps.plot([interval.low, interval.high], [place, place], color="C0" if row.p_holm < ALPHA else "0.5")
    gaps.axvline(0, color="black", linewidth=0.8)
    label_axes(scores, xlabel=f"{criterion.metric}, each seed (bar: mean)")
    label_axes(gaps, xlabel="difference from the baseline, 95 % interval")
    scores.set_yticks(range(len(rows)), [_truncate(row.group.short) + (" †" if row.failed else "") for row in rows])
    scores.set_ylim(len(rows) - 0.5, -0.5)
    return sheet
