"""The curves of a run as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.engine.logs.sinks import read_metrics

DOTS = 4000  # shown at most
DOT = {"linestyle": "", "marker": ".", "markersize": 4, "color": "0.8"}
LINE = {"color": "C0", "linewidth": 2}
POINTS = {"marker": "o", "markersize": 4, "color": "C1"}
LOSSES = {
    "train/loss": ("training, each step", DOT),
    "train/loss_average": ("training, moving average", LINE),
    "val/loss": ("validation", POINTS),
}
ACCURACIES = {"train/accuracy": ("training", LINE), "val/accuracy": ("validation", POINTS)}

Rows = Sequence[tuple[int, dict[str, float]]]


def loss_figure(path: Path) -> bytes:
    """Return a PNG of a run's `metrics.jsonl`: each step's loss as a dot, its moving average, and validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(read_metrics(path))
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    draw(loss, rows, LOSSES, "loss")
    draw(accuracy, rows, ACCURACIES, "accuracy")
    if top := ceiling(rows):
        loss.set_ylim(0, top)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def draw(axes: Any, rows: Rows, lines: dict[str, tuple[str, dict[str, Any]]], name: str) -> None:
    """Draw the series that the run has, with a legend where there is any."""
    for tag, (label, style) in lines.items():
        points = [(step, row[tag]) for step, row in rows if tag in row]
        if points:
            shown = points[:: -(-len(points) // DOTS)]
            axes.plot(*zip(*shown, strict=True), label=label, **style)
    if axes.get_lines():
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel=name)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def ceiling(rows: Rows) -> float | None:
    """Return a height that shows 99 of 100 losses, so that one spike does not flatten the curve."""
    losses = sorted(row["train/loss"] for _, row in rows if math.isfinite(row.get("train/loss", math.nan)))
    top = 1.1 * losses[round(0.99 * (len(losses) - 1))] if losses else 0.0
    return top if top > 0 else None
