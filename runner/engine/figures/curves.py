"""Figure of the loss and the accuracy of a run over its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.engine.figures.picture import figure, new_figure
from runner.engine.logs.sinks import read_metrics

# Maximum number of points of a curve.
_MAX_POINTS = 4000
_DOT = {"linestyle": "", "marker": ".", "markersize": 4, "color": "0.8"}
_LINE = {"color": "C0", "linewidth": 2}
_SMALL_POINTS = {"marker": "o", "markersize": 4, "color": "C0", "linestyle": "--"}
_POINTS = {"marker": "o", "markersize": 4, "color": "C1"}
_LOSSES = {
    "train/loss": ("training, each step", _DOT),
    "train/loss_average": ("training, moving average", _LINE),
    "train_eval/loss": ("training examples, evaluated", _SMALL_POINTS),
    "val/loss": ("validation", _POINTS),
}
_ACCURACIES = {
    "train_eval/accuracy": ("training examples, evaluated", _SMALL_POINTS),
    "val/accuracy": ("validation", _POINTS),
}

_Rows = Sequence[tuple[int, dict[str, float]]]


@figure("png")
def loss_figure(path: Path) -> Any:
    """Draw the training and validation loss and accuracy in a `metrics.jsonl`."""
    rows = list(read_metrics(path))
    sheet = new_figure(11, 4, layout="constrained")
    loss, accuracy = sheet.subplots(1, 2)
    _draw(loss, rows, _LOSSES, "loss")
    _draw(accuracy, rows, _ACCURACIES, "accuracy")
    if top := loss_axis_top(rows):
        loss.set_ylim(0, top)
    return sheet


def _draw(axes: Any, rows: _Rows, lines: dict[str, tuple[str, dict[str, Any]]], name: str) -> None:
    """Draw the curves of the tags that the run logged, with a legend."""
    for tag, (label, style) in lines.items():
        points = [(step, row[tag]) for step, row in rows if tag in row]
        if points:
            drawn = points[:: -(-len(points) // _MAX_POINTS)]
            axes.plot(*zip(*drawn, strict=True), label=label, **style)
    if axes.get_lines():
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel=name)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def loss_axis_top(rows: _Rows) -> float | None:
    """Return the upper limit of the loss axis; None without a positive loss.

    It leaves out 1 % of the losses, so that a spike does not flatten the curve.
    """
    losses = sorted(row["train/loss"] for _, row in rows if math.isfinite(row.get("train/loss", math.nan)))
    top = 1.1 * losses[round(0.99 * (len(losses) - 1))] if losses else 0.0
    return top if top > 0 else None
