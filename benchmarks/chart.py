"""The bar chart of the results: each target relative to its bound, and the MLP step of each loop."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.targets import MLP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.targets import Result

_LOOPS = "One step of the MLP 64-128-128-10, 64 images, CPU, in microseconds: shorter is faster"
_BOUNDS = (
    "Median / bound: left of the dashed line is within the bound; | is the stretch goal, the dark bar the quartiles"
)
_CUT = 3.0  # in bounds; longer bars are cut, and their number is printed
_KEPT, _MISSED, _NEUTRAL, _MARK = "#2a7f62", "#c0392b", "#9aa5b1", "#1f2933"


def draw(path: Path, results: Sequence[Result], caption: str) -> None:
    """Write the chart; without results there is none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bounded = [result for result in results if result.pairs and result.target.bound is not None]
    loops = [result for result in results if result.pairs and result.target.title == MLP]
    parts = [(_draw_loops, _LOOPS, loops, len(loops) + 1), (_draw_bounds, _BOUNDS, bounded, len(bounded))]
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


def _draw_loops(axes: Axes, loops: Sequence[Result]) -> None:
    """Draw the time of a step in each loop, runner first."""
    times = {"ours": loops[0].medians[0], **{result.target.other: result.medians[1] for result in loops}}
    order = sorted(times, key=lambda name: (name != "ours", times[name]))
    bars = axes.barh(order, [times[name] for name in order], color=[_KEPT] + [_NEUTRAL] * (len(order) - 1))
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12)
    _tidy(axes)


def _draw_bounds(axes: Axes, results: Sequence[Result]) -> None:
    """Draw each target's median divided by its bound, with quartiles."""
    extremes = []
    for place, result in enumerate(results):
        values, bound = result.values, result.target.bound
        assert values is not None
        assert bound is not None
        share = [_position(result, value) for value in (values.median, values.quartile1, values.quartile3)]
        extremes += share
        color = _MISSED if result.verdict == "MISS" else _KEPT
        axes.barh(place, share[0], color=color, height=0.7)
        axes.hlines(place, min(share[1:]), max(share[1:]), color=_MARK, linewidth=1.5)
        if result.target.stretch is not None:
            axes.plot(_position(result, result.target.stretch), place, marker="|", color=_MARK, markersize=11)
        axes.annotate(_words(result), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    titles = [result.target.name for result in results]
    axes.set_yticks(range(len(results)), titles, fontsize=8)
    axes.axvline(1, color=_MARK, linestyle="--", linewidth=1)
    axes.set_xlim(0, min(_CUT, 1.05 * max(1.3, *extremes)))
    _tidy(axes)


def _position(result: Result, value: float) -> float:
    """Return a value scaled so that the bound is 1 and smaller is better."""
    bound = result.target.bound
    assert bound is not None
    return bound / value if result.target.compares == "other / ours" else value / bound


def _words(result: Result) -> str:
    """Return the median next to its bound."""
    assert result.values is not None
    sign = ">=" if result.target.compares == "other / ours" else "<="
    unit = " s" if result.target.compares == "ours" else ""
    return f"{result.values.median:.4g}{unit} ({sign} {result.target.bound:g}), {result.verdict}"


def _tidy(axes: Axes) -> None:
    """Put the first bar on top and remove the frame."""
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
