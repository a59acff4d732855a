"""The figure of a report on an ensemble."""

from __future__ import annotations

import math
from typing import Any

from runner.comparing.figures import label_axes, spread
from runner.engine.figures.picture import figure, new_figure
from runner.ensembles.report import EnsembleReport, change, headline, temperature_in_words

# Points of members that are drawn, and letters of a title
_MOST_DOTS, _LETTERS = 200, 90
# The gain that the lectures name, in percentage points
_EXPECTED = 2.0


@figure("png")
def ensemble_figure(report: EnsembleReport) -> Any:
    """Draw the accuracy of members and ensemble, the accuracy by number of members, and the gains with intervals."""
    # A soup has no curve
    has_curve = bool(report.statistics.curve)
    sheet = new_figure(11 if has_curve else 7, 4.3, layout="constrained")
    axes = list(sheet.subplots(1, 2 + has_curve, width_ratios=[1, *([1.6] if has_curve else []), 1.2]))
    _draw_members(axes[0], report)
    if has_curve:
        _draw_curve(axes[1], report)
    _draw_gains(axes[-1], report)
    title = headline(report)
    short = title if len(title) <= _LETTERS else f"{title[: _LETTERS - 3]}..."
    sheet.suptitle(short, fontsize=11, parse_math=False)
    sheet.supxlabel(_caption(report), fontsize=9, color="0.3", parse_math=False)
    return sheet


def _caption(report: EnsembleReport) -> str:
    """Return the numbers that have no axis: diversity, calibration and cost."""
    found = report.statistics
    words = []
    if not math.isnan(found.disagreement):
        words.append(f"two {report.members} disagree on {100 * found.disagreement:.1f} %")
    if not math.isnan(found.error_correlation):
        words.append(f"correlation of errors {found.error_correlation:.2f}")
    if report.temperature is not None and report.calibrated is not None:
        words.append(f"temperature {temperature_in_words(report.temperature)}: {change(report)}")
    else:
        words.append(f"NLL {found.ensemble.nll:.4f}, ECE {found.ensemble.ece:.4f}")
    return "; ".join([*words, f"cost {report.cost:g}x"])


def _draw_members(axes: Any, report: EnsembleReport) -> None:
    """Draw the accuracy of each member, of the best, and of the ensemble."""
    found = report.statistics
    dots = spread(sorted(found.members[place].accuracy for place in report.used), _MOST_DOTS)
    shift = [0.16 * ((place * 7) % 5 - 2) / 2 for place in range(len(dots))]
    label = f"{report.members} (bar: mean)"
    axes.plot(shift, dots, linestyle="", marker="o", alpha=0.6, color="C0", label=label)
    axes.plot([0], [found.mean.accuracy], linestyle="", marker="_", markersize=34, color="C0")
    best = found.members[found.best].accuracy
    axes.plot([0.6], [best], linestyle="", marker="D", color="C1", label=report.best)
    axes.plot(
        [1.2], [found.ensemble.accuracy], linestyle="", marker="*", markersize=13, color="C2", label=report.product
    )
    label_axes(axes, ylabel="accuracy")
    axes.set(xlim=(-0.4, 1.6), xticks=[])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.03), frameon=False, fontsize=8)


def _draw_curve(axes: Any, report: EnsembleReport) -> None:
    """Draw mean, sd and range of the accuracy by number of members."""
    points = report.statistics.curve
    numbers = [point.members for point in points]
    axes.fill_between(
        numbers, [p.lowest for p in points], [p.highest for p in points], color="C0", alpha=0.12, label="range"
    )
    means = [point.accuracy for point in points]
    spans = [0.0 if math.isnan(point.sd) else point.sd for point in points]
    axes.errorbar(numbers, means, yerr=spans, color="C0", marker="o", capsize=2, label="mean and sd over subsets")
    label_axes(axes, xlabel=f"number of {report.members}", ylabel="accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best", frameon=False, fontsize=8)


def _draw_gains(axes: Any, report: EnsembleReport) -> None:
    """Draw the gains with their intervals, and the gain that the lectures name."""
    found = report.statistics
    rows = {f"over the mean\nof the {report.members}": found.gain_over_mean}
    rows[f"over the\n{report.best}"] = found.gain_over_best
    for place, gain in enumerate(rows.values()):
        axes.plot([100 * gain.low, 100 * gain.high], [place, place], color="C2", linewidth=2)
        axes.plot([100 * gain.value], [place], marker="o", color="C2")
    axes.axvline(0, color="black", linewidth=0.8)
    if report.expected:
        axes.axvline(_EXPECTED, color="0.5", linestyle="--", linewidth=1, label=report.expected)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=8)
    label_axes(axes, xlabel="gain in points, 95 % interval")
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
