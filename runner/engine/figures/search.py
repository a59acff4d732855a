"""Grid and random search side by side, after figure 1 of Bergstra & Bengio 2012."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Try(NamedTuple):
    """One point of two knobs, and what it scored (nan: it diverged)."""

    matters: float
    other: float
    score: float


def search_figure(grid: Sequence[Try], random: Sequence[Try], keys: tuple[str, str], score: str) -> bytes:
    """Return a PNG: the points of both over the two knobs, above them each score over the knob that matters."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[1, 1.6])
    scores = [each.score for each in (*grid, *random) if math.isfinite(each.score)]
    colours = {"vmin": min(scores, default=0), "vmax": max(scores, default=1), "cmap": "viridis"}
    for column, (name, tries) in enumerate((("grid", grid), ("random", random))):
        values = len({each.matters for each in tries})
        rows[0][column].set_title(f"{name}: {len(tries)} points, {values} values of {keys[0]}", fontsize=11)
        shown = draw(rows[0][column], rows[1][column], tries, colours)
        rows[1][column].set_xlabel(keys[0])
    rows[0][0].set_ylabel(score)
    rows[1][0].set_ylabel(keys[1])
    figure.colorbar(shown, ax=list(rows[1]), label=score)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def draw(curve: Any, plane: Any, tries: Sequence[Try], colours: dict[str, Any]) -> Any:
    """Draw one search and return its points, for the scale of their colours."""
    done = [each for each in tries if math.isfinite(each.score)]
    lost = [each for each in tries if not math.isfinite(each.score)]
    curve.set_xscale("log")
    scores = [each.score for each in done]
    curve.scatter([each.matters for each in done], scores, c=scores, s=45, **colours)
    plane.set_yscale("log")
    shown = plane.scatter([each.matters for each in done], [each.other for each in done], c=scores, s=90, **colours)
    if lost:
        crosses = {"marker": "x", "color": "C3", "label": "diverged"}
        plane.scatter([each.matters for each in lost], [each.other for each in lost], **crosses)
        plane.legend(frameon=False)
    for axes in (curve, plane):
        for each in done:
            axes.axvline(each.matters, color="0.85", linewidth=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    return shown
