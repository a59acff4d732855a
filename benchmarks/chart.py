"""The bar chart: how far each target is from its bound, and the step of the MLP in each loop."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.targets import MLP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.result import Result

LOOPS = "One step of the MLP 64-128-128-10, 64 images, CPU, in microseconds: shorter is faster"
BOUNDS = (
    "How much of its bound each median takes: kept up to the dashed line; | is the stretch, the dark bar the quartiles"
)
CUT = 3.0  # bounds; the number beside a longer bar tells
KEPT, MISSED, NEUTRAL, MARK = "#2a7f62", "#c0392b", "#9aa5b1", "#1f2933"


def draw(path: Path, results: Sequence[Result], caption: str) -> None:
    """Write the chart; where nothing was measured there is none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bounded = [result for result in results if result.pairs and result.target.bound is not None]
    loops = [result for result in results if result.pairs and result.target.title == MLP]
    parts = [(draw_loops, LOOPS, loops, len(loops) + 1), (draw_bounds, BOUNDS, bounded, len(bounded))]
    parts = [part for part in parts if part[2]]
    if not parts:
        return
    heights = [rows * 0.3 + 1.1 for *_, rows in parts]
    figure = Figure(figsize=(12, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for (show, title, shown, _), part in zip(
        parts, figure.subfigures(len(parts), 1, squeeze=False, height_ratios=heights), strict=True
    ):
        part[0].suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
        show(part[0].subplots(), shown)
    figure.supxlabel(textwrap.fill(caption, 170), fontsize=7, color="#52606d")
    figure.savefig(path, dpi=130)


def draw_loops(axes: Axes, loops: Sequence[Result]) -> None:
    """Draw the time of a step in each loop, ours first."""
    times = {"ours": loops[0].medians[0], **{result.target.other: result.medians[1] for result in loops}}
    order = sorted(times, key=lambda name: (name != "ours", times[name]))
    bars = axes.barh(order, [times[name] for name in order], color=[KEPT] + [NEUTRAL] * (len(order) - 1))
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12)
    tidy(axes)


def draw_bounds(axes: Axes, results: Sequence[Result]) -> None:
    """Draw each target's median as a share of its bound, with quartiles; left of the line the bound is kept."""
    extremes = []
    for place, result in enumerate(results):
        values, bound = result.values, result.target.bound
        assert values is not None
        assert bound is not None
        share = [position(result, value) for value in (values.median, values.quartile1, values.quartile3)]
        extremes += share
        color = MISSED if result.verdict == "MISS" else KEPT
        axes.barh(place, share[0], color=color, height=0.7)
        axes.hlines(place, min(share[1:]), max(share[1:]), color=MARK, linewidth=1.5)
        if result.target.stretch is not None:
            axes.plot(position(result, result.target.stretch), place, marker="|", color=MARK, markersize=11)
        axes.annotate(words(result), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    titles = [result.target.name for result in results]
    axes.set_yticks(range(len(results)), titles, fontsize=8)
    axes.axvline(1, color=MARK, linestyle="--", linewidth=1)
    axes.set_xlim(0, min(CUT, 1.05 * max(1.3, *extremes)))
    tidy(axes)


def position(result: Result, value: float) -> float:
    """Return where a value lies when the bound lies at 1 and better is left."""
    bound = result.target.bound
    assert bound is not None
    return bound / value if result.target.compares == "other / ours" else value / bound


def words(result: Result) -> str:
    """Return the median beside its bound."""
    assert result.values is not None
    sign = ">=" if result.target.compares == "other / ours" else "<="
    unit = " s" if result.target.compares == "ours" else ""
    return f"{result.values.median:.4g}{unit} ({sign} {result.target.bound:g}), {result.verdict}"


def tidy(axes: Axes) -> None:
    """Put the first bar on top and take away what says nothing."""
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
