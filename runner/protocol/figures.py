"""The figures of the protocol's report, one for each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from runner.engine.figures.picture import Picture, figure, new_figure
from runner.protocol.outcome import StepResult
from runner.protocol.trials import DECAY, LR

_MOST_LINES = 8
_FRESH = ("winner", "incumbent")


def pictures_of(results: Sequence[StepResult]) -> dict[str, Picture]:
    """Return the picture of each step that has one, by its name."""
    drawers = {
        "check_init": _initial_figure,
        "overfit": _fit_figure,
        "find_lr": _rates_figure,
        "coarse": _coarse_figure,
        "refine": _refine_figure,
    }
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


@figure("png")
def _coarse_figure(found: Mapping[str, Any]) -> Any:
    """Draw the score of each point of the coarse search against the learning rate, a line for each weight decay."""
    sheet = new_figure(9.0, 3.8, layout="constrained")
    left, right = sheet.subplots(1, 2)
    decays = sorted({each["values"].get(DECAY, 0.0) for each in found["trials"]})
    # A line for each of many weight decays of quasi-random points says nothing
    style = {"marker": "o", "linestyle": "-" if len(decays) <= _MOST_LINES else ""}
    for number, decay in enumerate(decays):
        points = sorted(
            (each["values"][LR], _number(each["score"]), _number(each["accuracy"]))
            for each in found["trials"]
            if each["values"].get(DECAY, 0.0) == decay
        )
        color = _shade(number, len(decays))
        label = f"weight decay {decay:.2g}" if len(decays) <= _MOST_LINES else None
        left.plot([each[0] for each in points], [each[1] for each in points], color=color, label=label, **style)
        right.plot([each[0] for each in points], [each[2] for each in points], color=color, **style)
    right.axhline(found["majority"], color="0.4", linestyle="--", label="most frequent class")
    for axes in (left, right):
        axes.set_xscale("log")
    _finish(left, "learning rate", found["metric"], f"Coarse search, {found['epochs']:g} epochs")
    _finish(right, "learning rate", "validation accuracy", "Accuracy of the same trainings")
    return sheet


@figure("png")
def _refine_figure(found: Mapping[str, Any]) -> Any:
    """Draw the score of each training of the refining search, and the fresh seeds of winner and incumbent."""
    sheet = new_figure(9.0, 3.8, layout="constrained")
    left, right = sheet.subplots(1, 2)
    rounds = sorted({each["stage"] for each in found["trials"] if each["stage"] not in _FRESH})
    for number, stage in enumerate(rounds):
        points = [each for each in found["trials"] if each["stage"] == stage]
        rates, scores = [each["values"][LR] for each in points], [_number(each["score"]) for each in points]
        left.plot(rates, scores, "o", color=_shade(number, len(rounds)), label=stage)
    for place, name in enumerate(_FRESH):
        scores = [_number(value) for value in found[name]]
        right.plot([place] * len(scores), scores, "o", color=f"C{place}")
    # One seed is a pair
    for one, other in zip(found["winner"], found["incumbent"], strict=False):
        right.plot([0, 1], [_number(one), _number(other)], color="0.7", linewidth=0.8)
    right.set_xticks([0, 1], _FRESH)
    right.set_xlim(-0.5, 1.5)
    left.set_xscale("log")
    _finish(left, "learning rate", found["metric"], f"Refining search, {found['epochs']:g} epochs")
    _finish(right, "", found["metric"], "Fresh seeds")
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
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, ncols=columns)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: Any, missing: float = math.nan) -> float:
    """Return a number, `missing` for null."""
    return missing if value is None else float(value)
