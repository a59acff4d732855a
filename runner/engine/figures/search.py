"""Figure of grid and random search side by side (Bergstra & Bengio 2012, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from runner.engine.figures.picture import figure, new_figure


class Trial(NamedTuple):
    """A trial: the values of two hyperparameters, and its score; NaN if it diverged."""

    matters: float
    other: float
    score: float


@figure("png")
def search_figure(grid: Sequence[Trial], random: Sequence[Trial], keys: tuple[str, str], score: str) -> Any:
    """Draw the trials of both searches, and above them the scores over the important hyperparameter.

    Args:
        grid: The trials of the grid search.
        random: The trials of the random search.
        keys: The config keys of the important and the other hyperparameter.
        score: The name of the score.
    """
    sheet = new_figure(10, 6, layout="constrained")
    rows = sheet.subplots(2, 2, sharex=True, sharey="row", height_ratios=[1, 1.6])
    scores = [each.score for each in (*grid, *random) if math.isfinite(each.score)]
    colors = {"vmin": min(scores, default=0), "vmax": max(scores, default=1), "cmap": "viridis"}
    for column, (name, trials) in enumerate((("grid", grid), ("random", random))):
        values = len({each.matters for each in trials})
        rows[0][column].set_title(f"{name}: {len(trials)} points, {values} values of {keys[0]}", fontsize=11)
        scatter = _draw(rows[0][column], rows[1][column], trials, colors)
        rows[1][column].set_xlabel(keys[0])
    rows[0][0].set_ylabel(score)
    rows[1][0].set_ylabel(keys[1])
    sheet.colorbar(scatter, ax=list(rows[1]), label=score)
    return sheet


def _draw(curve: Any, plane: Any, trials: Sequence[Trial], colors: dict[str, Any]) -> Any:
    """Draw the trials of one search and return the scatter plot for the color bar."""
    done = [each for each in trials if math.isfinite(each.score)]
    diverged = [each for each in trials if not math.isfinite(each.score)]
    curve.set_xscale("log")
    scores = [each.score for each in done]
    curve.scatter([each.matters for each in done], scores, c=scores, s=45, **colors)
    plane.set_yscale("log")
    scatter = plane.scatter([each.matters for each in done], [each.other for each in done], c=scores, s=90, **colors)
    if diverged:
        crosses = {"marker": "x", "color": "C3", "label": "diverged"}
        plane.scatter([each.matters for each in diverged], [each.other for each in diverged], **crosses)
        plane.legend(frameon=False)
    for axes in (curve, plane):
        for each in done:
            axes.axvline(each.matters, color="0.85", linewidth=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    return scatter
