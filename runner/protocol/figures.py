"""The figures of the protocol's report, one for each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from runner.engine.figures.picture import Picture, figure, new_figure
from runner.protocol.outcome import StepResult


def pictures_of(results: Sequence[StepResult]) -> dict[str, Picture]:
    """Return the picture of each step that has one, by its name."""
    drawers = {"check_init": _initial_figure, "overfit": _fit_figure, "find_lr": _rates_figure}
    return {
        each.step: drawers[each.step](each.measurements)
        for each in results
        if each.step in drawers and not each.skipped
    }


@figure("png")
def _initial_figure(found: Mapping[str, Any]) -> Any:
    """Draw the initial loss of each seed with its standard error, and the expected one."""
    sheet = new_figure(6.5, 3.0, layout="constrained")
    axes = sheet.subplots()
    seeds = found["seeds"]
    losses = [_number(each["loss"]) for each in seeds]
    errors = [_number(each["standard_error"], 0.0) for each in seeds]
    axes.errorbar(range(len(seeds)), losses, errors, fmt="o", capsize=4, color="C0", label="measured, ± standard error")
    if found["expected"] is not None:
        axes.axhline(found["expected"], color="0.4", linestyle="--", label=f"expected: {found['expected_words']}")
    axes.set_xticks(range(len(seeds)))
    axes.set_xlim(-0.5, len(seeds) - 0.5)
    # An excess of a few percent must not fill the axis
    shown = [value for value in (*losses, found["expected"]) if value is not None and math.isfinite(value)]
    axes.set_ylim(min(0.0, *shown, 0.0), 1.2 * max(0.0, *shown, 0.0) or 1.0)
    _finish(axes, "seed", "loss before training", "Initial loss")
    return sheet


@figure("png")
def _fit_figure(found: Mapping[str, Any]) -> Any:
    """Draw loss and accuracy of each learning rate on the small sample against steps."""
    sheet = new_figure(9.0, 3.6, layout="constrained")
    left, right = sheet.subplots(1, 2)
    for number, rung in enumerate(found["rungs"]):
        steps = [point["step"] for point in rung["curve"]]
        style = {"color": f"C{number % 10}", "marker": ".", "label": f"lr {rung['lr']:.3g}"}
        left.plot(steps, [_number(point["train_loss"]) for point in rung["curve"]], **style)
        right.plot(steps, [_number(point["eval_accuracy"]) for point in rung["curve"]], **style)
    left.axhline(found["loss_below"], color="0.4", linestyle="--", label="goal")
    left.set_yscale("log")
    right.set_ylim(0, 1.03)
    _finish(left, "step", "loss on the sample", "Overfit a small sample")
    _finish(right, "step", "accuracy, evaluation mode", f"{found['examples']} examples")
    return sheet


@figure("png")
def _rates_figure(found: Mapping[str, Any]) -> Any:
    """Draw the loss after a short training against the learning rate, and the curves of each."""
    sheet = new_figure(10.0, 3.8, layout="constrained")
    left, right = sheet.subplots(1, 2)
    rates = [each for each in found["rates"] if each["score"] is not None]
    left.plot(
        [each["lr"] for each in rates],
        [each["score"] for each in rates],
        marker="o",
        color="C0",
        label="loss at the end",
    )
    for each in found["rates"]:
        if each["score"] is None:
            left.axvline(each["lr"], color="C3", alpha=0.3, linewidth=4)
    left.axhline(found["initial_loss"], color="0.6", linestyle=":", label="loss at the start")
    if found["chosen"] is not None:
        left.axvline(found["chosen"], color="C2", linestyle="--", label=f"chosen: {found['chosen']:.3g}")
    left.set_xscale("log")
    top = 1.5 * found["initial_loss"]
    for number, each in enumerate(found["rates"]):
        losses = [_number(value) for value in each["curve"]]
        right.plot(
            range(1, len(losses) + 1), losses, color=_shade(number, len(found["rates"])), label=f"{each['lr']:.1e}"
        )
    right.set_ylim(0, top)
    _finish(left, "learning rate", f"median loss of the last {found['tail']} steps", "Learning rates (red: diverged)")
    _finish(right, "step", "training loss, smoothed", "Curves of the first seed", columns=2)
    return sheet


def _shade(number: int, count: int) -> Any:
    """Return a color for each of some ordered lines."""
    from matplotlib import colormaps

    return colormaps["viridis"](number / max(1, count - 1))


def _finish(axes: Any, x: str, y: str, title: str, columns: int = 1) -> None:
    """Write the names of the axes, a legend and a grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=columns)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: Any, missing: float = math.nan) -> float:
    """Return a number, `missing` for null."""
    return missing if value is None else float(value)
