"""Figures of activations before training: their histogram in each layer, and their scale over depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runner.engine.activations import SATURATION, Layer
from runner.engine.figures.picture import figure, new_figure
from runner.tasks.init_verdicts import Case

# Layers shown at most.
_COLUMNS = 8
_COLORS = {None: "#2a7f3f", "hint": "#4a6fa5", "warning": "#c76a00", "error": "#b3121d"}
_BARS = "#4878a8"
_GRAY = "0.45"
# Width of a histogram as a share of the x axis at least, so that a collapsed layer stays visible.
_MIN_WIDTH = 0.015
_BOUNDED = {kind.__name__ for kind, (low, _) in SATURATION.items() if math.isfinite(low)}


@figure("png")
def histogram_figure(cases: Sequence[Case]) -> Any:
    """Draw one histogram per layer (columns) and case (rows), as in CS231n's lecture on initialization.

    Exact zeros are not drawn; their share is written above the histogram. The histograms of a row share one x axis.
    """
    count = len(cases[0].layers)
    shown = evenly_spaced(count, _COLUMNS)
    sheet = new_figure(2.1 + 1.75 * max(3, len(shown)), 1.15 + 1.35 * len(cases), layout="constrained")
    grid = sheet.subplots(len(cases), max(3, len(shown)), squeeze=False)
    for axes, case in zip(grid, cases, strict=True):
        _draw_case(axes, case, shown)
    for cell, place in zip(grid[0], shown, strict=False):
        _draw_layer_name(cell, f"layer {place + 1}", _without_start(cases[0].layers[place].name))
    some = "" if len(shown) == count else f"{len(shown)} of {count} layers; "
    sheet.suptitle(f"Activations before training ({some}exact zeros are not drawn)", fontsize=12)
    return sheet


def _draw_case(axes: Sequence[Any], case: Case, shown: Sequence[int]) -> None:
    """Draw a row of histograms with its name and verdict on the left."""
    low, high = _limits(case.layers)
    for cell, place in zip(axes, shown, strict=False):
        _draw_layer(cell, case.layers[place], (low, high))
    for cell in axes[len(shown) :]:
        cell.set_axis_off()
    left = axes[0]
    words = f"{case.activation}\n{case.init.replace(' ', chr(10))}"
    label = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right"}
    left.annotate(words, (0, 0.5), (-10, 0), fontsize=10, fontweight="bold", va="bottom", **label)
    verdict = case.verdict.replace(", ", "\n")
    left.annotate(verdict, (0, 0.5), (-10, -4), fontsize=8.5, color=_COLORS[case.severity], va="top", **label)


def _draw_layer(axes: Any, layer: Layer, ends: tuple[float, float]) -> None:
    """Draw the histogram of a layer with its numbers above."""
    low, high = layer.edges
    high = max(high, low + _MIN_WIDTH * (ends[1] - ends[0]))
    step = (high - low) / len(layer.counts)
    axes.stairs(layer.counts, [low + step * i for i in range(len(layer.counts) + 1)], fill=True, color=_BARS)
    axes.set_xlim(*ends)
    axes.set_ylim(0, 1.02 * max(layer.counts) or 1.0)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(labelsize=8, length=2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    zero = f"   {layer.zero:.0%} zero" if layer.zero > 0.005 else ""
    words = f"std {layer.std:.3g}{zero}\ngradient {layer.grad_std:.2g}"
    axes.set_title(words, fontsize=8, loc="left", pad=3, color="0.15", linespacing=1.25)


def _limits(layers: Sequence[Layer]) -> tuple[float, float]:
    """Return the x limits of a row: four standard deviations of its widest layer, or a bounded function's range."""
    low, high = min(layer.edges[0] for layer in layers), max(layer.edges[1] for layer in layers)
    if layers[0].kind in _BOUNDED:
        return low, high
    reach = max([abs(layer.mean) + 4 * layer.std for layer in layers if math.isfinite(layer.std)], default=0.0) or 1.0
    high = min(high, reach)
    return max(0.0 if 0 < low < 0.1 * high else low, -reach), high


def _draw_layer_name(axes: Any, title: str, name: str) -> None:
    """Write the name of a column's layer."""
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "left"}
    axes.annotate(title, (0, 1), (0, 41), fontsize=10, fontweight="bold", **place)
    axes.annotate(name, (0, 1), (0, 31), fontsize=7.5, color=_GRAY, **place)


def _without_start(name: str, longest: int = 24) -> str:
    """Return a name, cut at its start if it is long."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices 0 to count - 1, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


@figure("png")
def depth_figure(cases: Sequence[Case]) -> Any:
    """Draw the standard deviation of activations and of their gradients over the layers, a line per case."""
    sheet = new_figure(11.5, 4.2, layout="constrained")
    for axes, (what, title) in zip(sheet.subplots(1, 2), _LINES.items(), strict=True):
        for number, case in enumerate(cases):
            _draw_line(axes, case, [getattr(layer, what) for layer in case.layers], number)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("layer")
        axes.locator_params(axis="x", integer=True)
        axes.set_yscale("log")
        _widen(axes)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = sheet.axes[0].get_legend_handles_labels()
    sheet.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    return sheet


_LINES = {"std": "standard deviation of the activations", "grad_std": "standard deviation of their gradient"}


def _draw_line(axes: Any, case: Case, values: Sequence[float], number: int) -> None:
    """Draw one case over the layers; the logarithmic axis omits zeros."""
    points = [value if value > 0 and math.isfinite(value) else math.nan for value in values]
    style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
    axes.plot(range(1, len(points) + 1), points, marker="o", markersize=4, label=case.name, **style)


def _widen(axes: Any) -> None:
    """Make a logarithmic axis span at least two powers of ten, so that small changes look small."""
    low, high = axes.get_ylim()
    if high < 100 * low:
        center = math.sqrt(low * high)
        axes.set_ylim(center / 10, center * 10)
