"""An ensemble of some models: chosen, combined and scored by their predictions; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from runner.engine.saving.ensemble_file import Combine
from runner.ensembles.calibration import Array, PredictionScores, prediction_scores, with_temperature
from runner.ensembles.gains import paired_gain
from runner.ensembles.statistics import EnsembleStatistics, combine, statistics
from runner.tasks.ensembling.candidates import Candidate
from runner.tasks.ensembling.outputs import CommonData, Outputs, predicted, validation_outputs
from runner.tasks.ensembling.selection import Selection, Temperature, fit_on_half, select


@dataclass(frozen=True, kw_only=True)
class Made:
    """An ensemble or a soup, as task=ensemble makes it.

    Attributes:
        models: The models that were found.
        selection: Which of them are members.
        how: `probabilities`, `logits` or `weights` (a soup).
        used: The models of the new folder with their weights: the members of an ensemble, or the soup.
        shares: The weights of these, whose sum is 1.
        temperature: The temperature.
        outputs: The predictions of `models` for validation.
        log_p: The combined log-probabilities (N, C) for validation, with the temperature.
        statistics: What it scores on the examples of validation that chose no members, without the temperature.
        lines: What to say about it.
    """

    models: Sequence[Candidate]
    selection: Selection
    how: Literal["probabilities", "logits", "weights"]
    used: Sequence[Candidate]
    shares: Sequence[float]
    temperature: Temperature
    outputs: Outputs
    log_p: Array
    statistics: EnsembleStatistics
    lines: tuple[str, ...] = ()

    @property
    def combine(self) -> Combine:
        """Return how the predictions of `used` are combined."""
        return "probabilities" if self.how == "weights" else self.how

    @property
    def scores(self) -> PredictionScores:
        """Return the scores on the examples of validation that chose no members, with the temperature."""
        part = self.selection.scored
        return prediction_scores(self.log_p[part], self.outputs.labels[part])


def make_ensemble(
    models: Sequence[Candidate],
    data: CommonData,
    members: str,
    how: Combine,
    temperature: float | Literal["fit"],
    seed: int,
) -> Made:
    """Return the ensemble of the models that `members` chooses."""
    outputs = validation_outputs(models, data)
    chosen = select(members, outputs, how, seed)
    log_p = combine(outputs.log_p, chosen.weights, how)
    found, chosen = fitted(temperature, chosen, outputs, log_p, seed)
    part = outputs.part(chosen.scored)
    used = [int(number) for number in np.flatnonzero(chosen.weights)]
    return Made(
        models=models,
        selection=chosen,
        how=how,
        used=[models[number] for number in used],
        shares=[float(chosen.weights[number]) for number in used],
        temperature=found,
        outputs=outputs,
        log_p=with_temperature(log_p, found.value),
        statistics=statistics(part.log_p, part.labels, chosen.weights, how, chosen.best, seed),
    )


def fitted(
    temperature: float | Literal["fit"], chosen: Selection, outputs: Outputs, log_p: Array, seed: int
) -> tuple[Temperature, Selection]:
    """Return the temperature that is given or fits, and the selection with the examples that are left to score."""
    if temperature == "fit":
        return fit_on_half(chosen, outputs, log_p, seed)
    return Temperature(value=float(temperature)), chosen


def test_statistics(made: Made, data: CommonData, seed: int) -> tuple[EnsembleStatistics, PredictionScores]:
    """Return what an ensemble scores on the test split without its temperature, and its scores with it.

    Of the models its members and the best one on validation are predicted.
    """
    places = scored_on_test(made)
    found = predicted([made.models[place] for place in places], data, "test")
    weights, best = made.selection.weights[places], places.index(made.selection.best)
    if made.how == "weights":
        log_p: Array = predicted(made.used, data, "test", quiet=True).log_p[0]
        stats = soup_statistics(found, log_p, weights, best, seed)
    else:
        log_p = combine(found.log_p, weights, made.how)
        stats = statistics(found.log_p, found.labels, weights, made.how, best, seed)
    return stats, prediction_scores(with_temperature(log_p, made.temperature.value), found.labels)


def soup_statistics(outputs: Outputs, log_p: Array, weights: Array, best: int, seed: int) -> EnsembleStatistics:
    """Return the statistics of a soup, whose log-probabilities (N, C) are given, beside the models it was made of."""
    found = statistics(outputs.log_p, outputs.labels, weights, "probabilities", best, seed)
    right = outputs.log_p.argmax(2) == outputs.labels
    own = (log_p.argmax(1) == outputs.labels).astype(float)
    return replace(
        found,
        ensemble=prediction_scores(log_p, outputs.labels),
        gain_over_mean=paired_gain(own - right[weights > 0].mean(0), seed),
        gain_over_best=paired_gain(own - right[best], seed),
        curve=(),
    )


def scored_on_test(made: Made) -> list[int]:
    """Return the positions of the models whose predictions for the test split are looked at."""
    return sorted({*map(int, np.flatnonzero(made.selection.weights)), made.selection.best})
