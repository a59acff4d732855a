"""The curves of a run, with marks where the evidence of its findings lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from runner.comparing.curves import RATIO
from runner.comparing.figures import label_axes
from runner.doctor.finding import Finding, Severity
from runner.doctor.history import History, Series
from runner.engine.figures.picture import figure, new_figure

_COLORS = {Severity.ERROR: "C3", Severity.WARN: "C1", Severity.HINT: "C0"}
# Points of a drawn curve; more cannot be seen
_MAX_POINTS = 400
# Names in a legend
_MAX_LABELS = 4
# Share of the losses below the upper end of the axis: a spike does not flatten the curve
_SHOWN_SHARE = 0.99
# Factor from the median loss to the largest one above which the axis is logarithmic
_WIDE = 20
# Part of the width of a panel that a mark takes at least, and of its height between two numbers above it
_LEAST_MARK, _APART = 0.004, 0.08
_LOSS = "train/loss"
_PANELS = {
    "training loss": (_LOSS, "train/loss_average", "val/loss", "train_eval/loss"),
    "accuracy": ("val/accuracy", "train_eval/accuracy"),
    "learning rate": ("train/lr",),
    "update / weights, log10 (-3 is usual)": (RATIO,),
}
_STYLES: dict[str, dict[str, Any]] = {
    _LOSS: {"color": "0.75", "linewidth": 0.8},
    "train/loss_average": {"color": "black", "linewidth": 1.6},
    "val/loss": {"color": "C2", "linewidth": 1.2, "marker": ".", "markersize": 4},
    "train_eval/loss": {"color": "C4", "linewidth": 1.2, "marker": ".", "markersize": 4},
    "val/accuracy": {"color": "C2", "linewidth": 1.2, "marker": ".", "markersize": 4},
    "train_eval/accuracy": {"color": "C4", "linewidth": 1.2, "marker": ".", "markersize": 4},
}


@figure("svg")
def diagnosis_figure(history: History, findings: Sequence[Finding]) -> Any:
    """Draw loss, accuracy, learning rate and update ratio; a finding's number stands at the steps of its evidence.

    A finding is marked in the panels of its curves, and in that of the loss if no panel shows them.
    """
    sheet = new_figure(10, 6.4, layout="constrained")
    last = max((int(curve.steps[-1]) for curve in history.curves.values() if len(curve)), default=1)
    for axes, (name, tags) in zip(sheet.subplots(2, 2).flat, _PANELS.items(), strict=True):
        _draw_curves(axes, history, tags)
        label_axes(axes, xlabel="step", ylabel=name)
        axes.set_xlim(0, max(last, 1) * 1.02)
        if tags[0] == _LOSS:
            _limit_loss_axis(axes, history.series(_LOSS))
        marked = [(i, each) for i, each in enumerate(findings, 1) if _belongs(each, tags)]
        for place, (number, finding) in enumerate(marked):
            _mark(axes, number, finding, last, place)
    return sheet


def _tags_in(history: History, tags: Sequence[str]) -> list[str]:
    """Return the tags of a panel that were logged; of the learning rate also those of the groups."""
    more = history.tags("train/lr/") if "train/lr" in tags else ()
    return [tag for tag in (*tags, *more) if len(history.series(tag))]


def _draw_curves(axes: Any, history: History, tags: Sequence[str]) -> None:
    """Draw the curves of a panel, or say that there are none."""
    shown = _tags_in(history, tags)
    for tag in shown:
        curve = _thinned(history.series(tag).finite())
        dot = "o" if 0 < len(curve) < 3 else None
        style = {**_STYLES.get(tag, {"linewidth": 1.2}), **({"marker": dot} if dot else {})}
        axes.plot(curve.steps, curve.values, label=tag if len(shown) <= _MAX_LABELS else None, **style)
    if not shown:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", color="0.5")
        axes.set_yticks([])
    elif 1 < len(shown) <= _MAX_LABELS:
        axes.legend(frameon=False, fontsize=8)


def _thinned(curve: Series) -> Series:
    """Return at most `_MAX_POINTS` points of a curve at equal distances, the last one included."""
    every = -(-len(curve) // _MAX_POINTS) or 1
    keep = np.arange(len(curve))[::-1][::every][::-1]
    return Series(curve.steps[keep], curve.values[keep])


def _limit_loss_axis(axes: Any, loss: Series) -> None:
    """Limit the loss axis to nearly all losses, from zero; losses of several orders of magnitude get a log scale."""
    values = np.sort(loss.finite().values)
    top = 1.15 * float(values[round(_SHOWN_SHARE * (len(values) - 1))]) if len(values) else 0.0
    if len(values) and values[0] > 0 and top > _WIDE * np.median(values):
        axes.set_yscale("log")
    elif top > 0 and math.isfinite(top):
        axes.set_ylim(min(0.0, float(values[0])), top)


def _belongs(finding: Finding, tags: Sequence[str]) -> bool:
    """Return True if a panel of some tags is one that a finding is marked in."""
    shown = {tag for each in _PANELS.values() for tag in each}
    own = {_panel_tag(tag) for tag in finding.evidence.tags} & shown
    return bool(own & set(tags)) if own else tags[0] == _LOSS


def _panel_tag(tag: str) -> str:
    """Return the tag of a panel that shows a curve, or the family that it belongs to."""
    if tag.startswith("ratio/"):
        return RATIO
    return "train/lr" if tag.startswith("train/lr") else tag


def _mark(axes: Any, number: int, finding: Finding, last: int, place: int) -> None:
    """Shade the steps of a finding's evidence, with its number above the panel; the next number is a bit higher."""
    first, last_shown = finding.evidence.steps
    color = _COLORS[finding.severity]
    end = max(last_shown, first + _LEAST_MARK * last)
    axes.axvspan(first, end, color=color, alpha=0.18, linewidth=0)
    axes.axvline(first, color=color, linewidth=0.8)
    box = {"boxstyle": "round,pad=0.2", "fc": color, "ec": "none"}
    at = (min((first + end) / 2, 0.98 * last), 1.02 + _APART * place)
    style = {"color": "white", "fontsize": 8, "va": "bottom", "ha": "center", "bbox": box}
    axes.text(*at, str(number), transform=axes.get_xaxis_transform(), **style)
