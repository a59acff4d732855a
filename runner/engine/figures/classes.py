"""Figures of the predictions of a split: confusion matrix and reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.engine.figures.picture import figure, new_figure
from runner.engine.figures.preview import cut_class_name, drawable_names

# Classes whose numbers are written into the cells; classes that are named; inches of the matrix at most
_MOST_NUMBERS, _MOST_NAMES, _LARGEST = 20, 60, 11.0
_MAX_LETTERS = 18
# Ticks of an axis with too many classes to name
_TICKS = 10
# Points of a curve over the examples
_MOST_POINTS = 1000


@figure("png")
def confusion_figure(counts: NDArray[np.float64], classes: Sequence[str], *, title: str) -> Any:
    """Draw a confusion matrix (K, K): rows are true classes, and a color is the share of the true class.

    Up to 20 classes have their numbers in the cells, and up to 60 their names at the axes.
    """
    number = len(classes)
    named = number <= _MOST_NAMES
    names = [cut_class_name(name, _MAX_LETTERS) for name in drawable_names(classes)] if named else []
    margin = 0.09 * max(map(len, names), default=4)
    side = min(_LARGEST, max(2.6, 0.48 * number)) if number <= _MOST_NUMBERS else min(_LARGEST, 5 + 0.09 * number)
    sheet = new_figure(side + margin + 1.5, side + margin + 0.9, layout="constrained")
    axes: Any = sheet.subplots()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    # The square root shows rare confusions
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if number <= _MOST_NUMBERS:
        _write_numbers(axes, counts, shares, 72 * side / number)
    _label(axes, names, number)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, fontsize=11, parse_math=False)
    bar = sheet.colorbar(image, ax=axes, fraction=0.046, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]))
    bar.ax.set_yticklabels(["0", "1 %", "10 %", "25 %", "50 %", "100 %"], fontsize=8)
    bar.set_label("share of the true class", fontsize=9)
    return sheet


def _write_numbers(axes: Any, counts: NDArray[np.float64], shares: NDArray[np.float64], width: float) -> None:
    """Write the counts that are not zero into the cells, which are so many points wide."""
    digits = len(str(int(counts.max(initial=0))))
    size = min(10.0, width / digits)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.35 else "black"
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=size, color=color)


def _label(axes: Any, names: Sequence[str], number: int) -> None:
    """Name the classes at both axes, or number some of them."""
    if not names:
        places = np.unique(np.linspace(0, number - 1, _TICKS).round().astype(int))
        axes.set_xticks(places)
        axes.set_yticks(places)
        return
    size = 9 if number <= _MOST_NUMBERS else 6.5
    axes.set_xticks(range(number), names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=size)
    axes.set_yticks(range(number), names, fontsize=size)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        # A dollar sign in a name starts no formula
        text.set_parse_math(False)


@figure("png")
def calibration_figure(bins: NDArray[np.float64], risks: NDArray[np.float64] | None = None, *, title: str) -> Any:
    """Draw a reliability diagram and, with `risks`, the risk-coverage curve beside it.

    Args:
        bins: The examples, the sum of confidences and the correct predictions of each bin (3, n).
        risks: The error rate (N,) of the n most confident examples, n = 1 to N.
        title: The title.
    """
    sheet = new_figure(5.2 if risks is None else 9.6, 6.2, layout="constrained")
    left, right = (sheet, None) if risks is None else sheet.subfigures(1, 2, width_ratios=[5.2, 4.4])
    _draw_reliability(left, bins)
    if right is not None and risks is not None:
        _draw_risk_coverage(right, risks)
    sheet.suptitle(title, fontsize=11, parse_math=False)
    return sheet


def _draw_reliability(sheet: Any, bins: NDArray[np.float64]) -> None:
    """Draw accuracy over confidence, and how many examples have each confidence."""
    examples, confidence, hits = bins
    count = len(examples)
    edges = np.arange(count) / count
    above, below = sheet.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = examples > 0
    accuracy = np.divide(hits, examples, out=np.zeros(count), where=filled)
    mean = np.divide(confidence, examples, out=np.zeros(count), where=filled)
    style: dict[str, Any] = {"width": 1 / count, "align": "edge", "edgecolor": "white", "linewidth": 0.8}
    above.bar(edges, np.minimum(accuracy, mean), color="C0", label="accuracy", **style)
    for sign, color, word in ((-1, "C3", "below"), (1, "C2", "above")):
        gap = (sign * (accuracy - mean)).clip(0)
        style_of_gap = {**style, "color": color, "alpha": 0.45, "label": f"accuracy {word} the confidence"}
        above.bar(edges, gap, bottom=np.minimum(accuracy, mean), **style_of_gap)
    above.plot([0, 1], [0, 1], color="0.3", linestyle="--", linewidth=1, label="perfectly calibrated")
    above.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    sheet.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    below.bar(edges, examples / max(1, examples.sum()), color="0.6", **style)
    below.set(xlabel="confidence", ylabel="share of examples")
    _clean(above)
    _clean(below)


def _draw_risk_coverage(sheet: Any, risks: NDArray[np.float64]) -> None:
    """Draw the error rate of the most confident examples over their share."""
    axes = sheet.subplots()
    count = len(risks)
    shown = np.unique(np.linspace(0, max(0, count - 1), min(count, _MOST_POINTS)).round().astype(int))
    axes.plot((shown + 1) / max(1, count), risks[shown], color="C0", label="error rate")
    if count:
        axes.axhline(risks[-1], color="0.3", linestyle="--", linewidth=1, label="of all examples")
        axes.axhline(risks.mean(), color="C1", linewidth=1, label=f"AURC {risks.mean():.4f}, its mean")
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    highest = float(np.nanmax(risks, initial=0.0))
    axes.set(xlabel="share of the most confident examples", ylabel="error rate among them", xlim=(0, 1))
    axes.set_ylim(0, 1.25 * highest or 1)
    _clean(axes)


def _clean(axes: Any) -> None:
    """Draw a grid behind the data and remove the box."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
