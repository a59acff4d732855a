"""The configurations that no other one beats in all objectives, as a table, as CSV and as a picture."""

from __future__ import annotations

from typing import Any

from runner.comparing.csv_tables import to_csv
from runner.comparing.figures import label_axes
from runner.comparing.pareto import Front, Objective
from runner.comparing.tables import Table
from runner.engine.figures.picture import figure, new_figure

# Configurations of the front with a number in the picture
_MOST_NAMES = 12


def front_table(front: Front, most: int | None = None) -> Table:
    """Return the configurations on the front."""
    shown_ones = range(front.size)[:most]
    return [
        {
            "configuration": front.labels[n],
            **{each.name: f"{x:.4g}" for each, x in zip(front.objectives, front.values[n], strict=True)},
        }
        for n in shown_ones
    ]


def front_title(front: Front) -> str:
    """Return what the table has, in one line."""
    names = ", ".join(f"{each.name} ({'larger' if each.larger_is_better else 'smaller'})" for each in front.objectives)
    return f"Pareto front of {names}: {front.size} of {len(front.labels)} configurations"


def front_csv(front: Front) -> str:
    """Return a row for each configuration."""
    names = [each.name for each in front.objectives]
    return to_csv(
        [
            {"configuration": label, **dict(zip(names, row, strict=True)), "on_front": number < front.size}
            for number, (label, row) in enumerate(zip(front.labels, front.values, strict=True))
        ]
    )


@figure("svg")
def draw_front(front: Front) -> Any:
    """Draw the first objective against each other one: all configurations, and those on the front by number."""
    first, *others = front.objectives
    sheet = new_figure(5.5 * len(others), 4, layout="constrained")
    panels = sheet.subplots(1, len(others), squeeze=False)[0]
    for place, (axes, other) in enumerate(zip(panels, others, strict=True), 1):
        points = [(row[place], row[0]) for row in front.values]
        best = sorted(points[: front.size])
        axes.plot(*zip(*points, strict=True), linestyle="", marker="o", color="0.75")
        line = {"drawstyle": _steps(other)} if len(others) == 1 else {"linestyle": ""}
        axes.plot(*zip(*best, strict=True), marker="o", color="C0", **line)
        for number, point in enumerate(points[: min(front.size, _MOST_NAMES)], 1):
            axes.annotate(str(number), point, fontsize=8, xytext=(4, 4), textcoords="offset points")
        label_axes(axes, xlabel=other.name, ylabel=first.name)
    return sheet


def _steps(other: Objective) -> str:
    """Return how the line between points of the front bends: around what one of them dominates."""
    return "steps-pre" if other.larger_is_better else "steps-post"
