"""Grid and random search side by side (Bergstra & Bengio 2012, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from runner.engine.figures import new_figure, png


class Try(NamedTuple):
    """The values of two hyperparameters and the score of the training (nan: it diverged)."""

    matters: float
    other: float
    score: float


def search_figure(grid: Sequence[Try], random: Sequence[Try], keys: tuple[str, str], score: str) -> bytes:
    """Return a PNG: the points of both searches, and above them each score over the hyperparameter that matters."""
    figure = new_figure(10, 6, layout="constrained")
    rows = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[1, 1.6])
    scores = [each.score for each in (*grid, *random) if math.isfinite(each.score)]
    colors = {"vmin": min(scores, default=0), "vmax": max(scores, default=1), "cmap": "viridis"}
    for column, (name, tries) in enumerate((("grid", grid), ("random", random))):
        values = len({each.matters for each in tries})
        rows[0][column].set_title(f"{name}: {len(tries)} points, {values} values of {keys[0]}", fontsize=11)
        shown = _draw(rows[0][column], rows[1][column], tries, colors)
        rows[1][column].set_xlabel(keys[0])
    rows[0][0].set_ylabel(score)
    rows[1][0].set_ylabel(keys[1])
    figure.colorbar(shown, ax=list(rows[1]), label=score)
    return png(figure)


def _draw(curve: Any, plane: Any, tries: Sequence[Try], colors: dict[str, Any]) -> Any:
    """Draw one search and return its points, for the color bar."""
    done = [each for each in tries if math.isfinite(each.score)]
    diverged = [each for each in tries if not math.isfinite(each.score)]
    curve.set_xscale("log")
    scores = [each.score for each in done]
    curve.scatter([each.matters for each in done], scores, c=scores, s=45, **colors)
    plane.set_yscale("log")
    shown = plane.scatter([each.matters for each in done], [each.other for each in done], c=scores, s=90, **colors)
    if diverged:
        crosses = {"marker": "x", "color": "C3", "label": "diverged"}
        plane.scatter([each.matters for each in diverged], [each.other for each in diverged], **crosses)
        plane.legend(frameon=False)
    for axes in (curve, plane):
        for each in done:
            axes.axvline(each.matters, color="0.85", linewidth=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    return shown
