"""The pictures of a comparison, as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from runner.comparing.curves import RATIO, band, points
from runner.comparing.runs import Series
from runner.comparing.statistics import ALPHA
from runner.comparing.verdicts import Criterion, Row

COLOURED = 8  # configurations with their own colour; the others are grey
GREY = "0.75"
PANELS = {
    "val/accuracy": "validation accuracy",
    "val/loss": "validation loss",
    "train/loss_average": "training loss, moving average",
    RATIO: "update / weights, log10 (-3 is usual)",
}
LONGEST = 44  # characters of a label
HIGHEST = 1.5  # of a loss's axis: times the largest first loss


def canvas(width: float, height: float) -> Any:
    """Return an empty figure, without a window or pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Any) -> bytes:
    """Return a figure as SVG; equal figures give equal bytes."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "runner", "path.simplify": True}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def plain(axes: Any, **words: str) -> None:
    """Label the axes, and draw a grid and no box."""
    axes.set(**words)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def short(label: str) -> str:
    """Return a label that fits beside a picture."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 3]}..."


def colours(rows: Sequence[Row], criterion: Criterion) -> dict[str, str]:
    """Return a colour for each label: black for the baseline, one each for the best, grey for the rest."""
    sign = -1 if criterion.larger_is_better else 1
    others = [row for row in rows if not row.is_baseline]
    best = sorted(others, key=lambda row: (math.isnan(row.mean), sign * row.mean))[: COLOURED - 1]
    chosen = [row for row in others if row in best]  # in the table's order
    return {
        **dict.fromkeys((row.group.label for row in rows), GREY),
        **{row.group.label: f"C{number}" for number, row in enumerate(chosen)},
        **{row.group.label: "black" for row in rows if row.is_baseline},
    }


def curves(rows: Sequence[Row], criterion: Criterion) -> bytes:
    """Draw the learning curves: mean over seeds, a band of one standard deviation, failed runs dashed to their end."""
    figure, colour = canvas(10, 7), colours(rows, criterion)
    for axes, (tag, name) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for row in sorted(rows, key=lambda row: colour[row.group.label] != GREY):
            lines(axes, row, tag, colour[row.group.label])
        plain(axes, xlabel="step", ylabel=name)
        if "loss" in tag:
            limit(axes, rows, tag)
    legend(figure, rows, colour)
    return svg(figure)


def lines(axes: Any, row: Row, tag: str, colour: str) -> None:
    """Draw one configuration."""
    mean = band(row.group.complete, tag)
    axes.plot(mean.steps, mean.mean, color=colour, linewidth=1.6, marker="o" if len(mean.steps) < 3 else "")
    if len(row.group.complete) > 1 and any(math.isnan(sd) for sd in mean.sd):
        for run in row.group.complete:
            axes.plot(*columns(points(run, tag)), color=colour, linewidth=0.5)
    else:
        low, high = ([m + sign * sd for m, sd in zip(mean.mean, mean.sd, strict=True)] for sign in (-1, 1))
        axes.fill_between(mean.steps, low, high, color=colour, alpha=0.15, linewidth=0)
    for run in row.group.runs:
        if run not in row.group.complete and (curve := points(run, tag)):
            axes.plot(*columns(curve), color=colour, linewidth=0.8, linestyle="--")
            axes.plot(*curve[-1], color=colour, marker="x", markersize=6)


def columns(curve: Series) -> tuple[list[int], list[float]]:
    """Return the steps and the numbers of a curve."""
    return [step for step, _ in curve], [value for _, value in curve]


def limit(axes: Any, rows: Sequence[Row], tag: str) -> None:
    """Limit the loss axis, so that a diverged run does not flatten the others."""
    firsts = [run.series(tag)[0][1] for row in rows for run in row.group.complete if run.series(tag)]
    firsts = [value for value in firsts if math.isfinite(value)]
    if firsts and axes.get_ylim()[1] > HIGHEST * max(firsts):
        axes.set_ylim(0, HIGHEST * max(firsts))


def legend(figure: Any, rows: Sequence[Row], colour: dict[str, str]) -> None:
    """Name the coloured configurations under a figure, and count the grey ones."""
    from matplotlib.lines import Line2D

    shown = [row.group for row in rows if colour[row.group.label] != GREY]
    handles = [Line2D([], [], color=colour[group.label], label=short(group.short)) for group in shown]
    if grey := len(rows) - len(shown):
        handles.append(Line2D([], [], color=GREY, label=f"{grey} more"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def seeds(rows: Sequence[Row], criterion: Criterion) -> bytes:
    """Draw the score of each seed, and the differences from the baseline with their intervals."""
    figure = canvas(10, 1.2 + 0.35 * len(rows))
    scores, gaps = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        dots = list(row.scores.values())
        scores.plot(dots, [place] * len(dots), linestyle="", marker="o", alpha=0.6, color="C0")
        scores.plot([row.mean], [place], linestyle="", marker="|", markersize=18, color="black")
        interval = row.paired
        if not row.is_baseline and math.isfinite(interval.mean):
            gaps.plot([interval.mean], [place], marker="o", color="C0" if row.holm < ALPHA else "0.5")
            gaps.plot([interval.low, interval.high], [place, place], color="C0" if row.holm < ALPHA else "0.5")
    gaps.axvline(0, color="black", linewidth=0.8)
    plain(scores, xlabel=f"{criterion.metric}, each seed (bar: mean)")
    plain(gaps, xlabel="difference from the baseline, 95 % interval")
    scores.set_yticks(range(len(rows)), [short(row.group.short) + (" †" if row.failed else "") for row in rows])
    scores.set_ylim(len(rows) - 0.5, -0.5)
    return svg(figure)
