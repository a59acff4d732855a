"""The report on an ensemble as sentences and tables of words: for the terminal, Markdown, HTML and TensorBoard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from runner.comparing.tables import Table
from runner.comparing.verdicts import SCORE_FORMAT
from runner.engine.saving.ensemble_file import Combine
from runner.ensembles.calibration import PredictionScores
from runner.ensembles.gains import Gain
from runner.ensembles.statistics import CurvePoint, EnsembleStatistics

_SCORES = ("accuracy", "nll", "ece", "brier", "aurc")
# Examples from which a hundredth of a point can be more than one example
_MANY = 1000
_LECTURES = "the lectures say about 2 %"


@dataclass(frozen=True, kw_only=True)
class EnsembleReport:
    """The content of a report on an ensemble.

    Attributes:
        title: What was combined, as `ensemble of 5 runs`.
        split: The split that was scored, in words.
        names: The names of the members, in the order of the statistics.
        statistics: The statistics on the split.
        how: What is averaged: predictions of the members, or (`weights`) their weights.
        cost: The forward passes of a prediction relative to one member.
        temperature: The temperature of the ensemble; None without one.
        calibrated: The scores of the ensemble at this temperature.
        fitted_on: The examples that the temperature was fitted on, in words.
        member: The word for a member.
        members: The word for several.
        best: The words for the member that the ensemble is compared with.
        expected: A gain to show beside the measured one, in words; empty for none.
        product: The word for what was made of the members.
        notes: More lines.
    """

    title: str
    split: str
    names: tuple[str, ...]
    statistics: EnsembleStatistics
    how: Combine | Literal["weights"]
    cost: float
    temperature: float | None = None
    calibrated: PredictionScores | None = None
    fitted_on: str = ""
    member: str = "member"
    members: str = "members"
    best: str = "best member by validation"
    expected: str = _LECTURES
    product: str = "ensemble"
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> list[int]:
        """The positions of the members that have a weight."""
        return [place for place, weight in enumerate(self.statistics.weights) if weight > 0]


def headline(report: EnsembleReport) -> str:
    """Return what was combined and scored, in one line."""
    return f"{report.title} on {report.split} ({report.statistics.examples:,} examples), mean of {report.how}"


def points(gain: Gain, examples: int) -> str:
    """Return a gain in percentage points with its interval, as `+1.3 points [0.4, 2.1]`."""
    if math.isnan(gain.value):
        return "not defined"
    digits = 1 if examples < _MANY else 2
    # Without the sign of 0
    value, low, high = (round(100 * number, digits) + 0.0 for number in (gain.value, gain.low, gain.high))
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:+.{digits}f} points{interval}"


def sentences(report: EnsembleReport) -> list[str]:
    """Return the gain and what explains it, in words."""
    found = report.statistics
    over_mean = points(found.gain_over_mean, found.examples)
    lines = [
        f"gain over the mean of the {report.members}: {over_mean}",
        f"gain over the {_best_name(report)}: {points(found.gain_over_best, found.examples)}",
        f"intervals: 95 %, paired bootstrap over the {found.examples:,} examples, not over seeds",
        *([f"{report.expected}; measured here: {over_mean} over the mean"] if report.expected else []),
    ]
    if not math.isnan(found.disagreement):
        lines.append(f"two {report.members} disagree on {100 * found.disagreement:.1f} % of the examples")
        lines.append(f"correlation of their errors: {_number(found.error_correlation, '.2f') or 'not defined'}")
    lines += _temperature_line(report)
    return [*lines, f"cost: {report.cost:g} times the forward passes of one {report.member}", *report.notes]


def _best_name(report: EnsembleReport) -> str:
    """Return the words for the member that the ensemble is compared with, and its name if that says more."""
    name = report.names[report.statistics.best]
    return report.best if name == report.best else f"{report.best} ({name})"


def _temperature_line(report: EnsembleReport) -> list[str]:
    """Return the line about the temperature, none without one."""
    if report.temperature is None or report.calibrated is None:
        return []
    where = f", fitted on {report.fitted_on}" if report.fitted_on else ""
    return [f"temperature {temperature_in_words(report.temperature)}{where}: {change(report)}"]


def change(report: EnsembleReport) -> str:
    """Return NLL and ECE before and after the temperature."""
    assert report.calibrated is not None
    return scores_change(report.statistics.ensemble, report.calibrated)


def scores_change(before: PredictionScores, after: PredictionScores) -> str:
    """Return NLL, ECE and Brier score before and after temperature scaling, in words."""
    names = {"NLL": "nll", "ECE": "ece", "Brier": "brier"}
    return ", ".join(
        f"{word} {_score(before, name) or 'nan'} -> {_score(after, name) or 'nan'}" for word, name in names.items()
    )


def temperature_in_words(temperature: float) -> str:
    """Return a temperature with four digits."""
    return f"{temperature:.4g}"


def scores_table(report: EnsembleReport) -> Table:
    """Return the scores of the members together, of the best, and of the ensemble."""
    found = report.statistics
    rows = {
        f"mean of the {report.members}": found.mean,
        f"sd of the {report.members}": found.sd,
        _best_name(report): found.members[found.best],
        report.product: found.ensemble,
    }
    if report.temperature is not None and report.calibrated is not None:
        rows[f"{report.product} at temperature {temperature_in_words(report.temperature)}"] = report.calibrated
    if len(report.used) == 1:
        del rows[f"sd of the {report.members}"]
    return [{"predictions": name, **{each: _score(scores, each) for each in _SCORES}} for name, scores in rows.items()]


def members_table(report: EnsembleReport) -> Table:
    """Return the weight and the scores of each member; one without a weight is not in the ensemble."""
    found = report.statistics
    return [
        {
            report.member: name,
            "weight": f"{weight:.3f}" if weight else "0",
            **{each: _score(scores, each) for each in ("accuracy", "nll", "ece")},
        }
        for name, weight, scores in zip(report.names, found.weights, found.members, strict=True)
    ]


def curve_table(report: EnsembleReport) -> Table:
    """Return the scores by number of members, over all subsets or sampled ones."""
    return [
        {
            f"{report.members}": str(point.members),
            "subsets": _subsets(point, len(report.used)),
            "accuracy": _number(point.accuracy, SCORE_FORMAT),
            "sd": _number(point.sd, SCORE_FORMAT),
            "lowest": _number(point.lowest, SCORE_FORMAT),
            "highest": _number(point.highest, SCORE_FORMAT),
            "nll": _number(point.nll, SCORE_FORMAT),
        }
        for point in report.statistics.curve
    ]


def _subsets(point: CurvePoint, members: int) -> str:
    """Return how many subsets a point averages, of how many."""
    every = math.comb(members, point.members)
    return f"all {every}" if point.has_all else f"{point.subsets} of {every:,}"


def _score(scores: PredictionScores, name: str) -> str:
    """Return a score with four digits, empty if it is not defined."""
    return _number(getattr(scores, name), SCORE_FORMAT)


def _number(value: float, form: str) -> str:
    """Return a number, empty for nan."""
    return "" if math.isnan(value) else f"{value:{form}}"
