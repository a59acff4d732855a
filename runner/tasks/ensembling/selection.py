"""The choice of members: their weights, and the examples of validation that are left to score them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runner.engine.saving.ensemble_file import Combine
from runner.ensembles.calibration import Array, disjoint_halves, fit_temperature, prediction_scores
from runner.ensembles.selection import greedy
from runner.errors import DataError, wrong
from runner.tasks.ensembling.outputs import Outputs

_BEST = "best:"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The members of an ensemble.

    Attributes:
        weights: (M,), 0 for a model that is no member; their sum is 1.
        best: The position of the model with the best validation score.
        fitted: The examples (n,) of validation that chose the members; None: none did, beside the score of each model.
        scored: The examples (n,) of validation that are left to score the ensemble.
        words: How the members were chosen.
    """

    weights: NDArray[np.float64]
    best: int
    fitted: NDArray[np.int64] | None
    scored: NDArray[np.int64]
    words: str


def ranking(outputs: Outputs) -> list[int]:
    """Return the positions of models by accuracy, the best first; of equal ones by their likelihood, then in order."""
    scores = [prediction_scores(each, outputs.labels) for each in outputs.log_p]
    return sorted(range(len(scores)), key=lambda at: (-scores[at].accuracy, np.nan_to_num(scores[at].nll, nan=np.inf)))


def select(members: str, outputs: Outputs, how: Combine, seed: int) -> Selection:
    """Return the members that `task.members` asks for, by their predictions for validation."""
    ranked, count = ranking(outputs), len(outputs.log_p)
    everything = np.arange(len(outputs.labels))
    if members == "greedy":
        first, second = halves(outputs, seed)
        part = outputs.part(first)
        weights = greedy(part.log_p, part.labels, how)
        words = f"greedy selection on {len(first)} of {len(everything)} validation examples"
        return Selection(weights=weights, best=ranked[0], fitted=first, scored=second, words=words)
    chosen, words = ranked, "all"
    if members.startswith(_BEST):
        wanted = int(members.removeprefix(_BEST))
        if wanted > count:
            raise wrong("task.members", members, f"at most best:{count}, the models that were found")
        chosen, words = ranked[:wanted], f"the {wanted} best of {count} on validation"
    weights = np.zeros(count)
    weights[chosen] = 1 / len(chosen)
    return Selection(weights=weights, best=ranked[0], fitted=None, scored=everything, words=words)


def halves(outputs: Outputs, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two halves of the examples; DataError if one would be empty."""
    first, second = disjoint_halves(outputs.labels, seed)
    if not len(second):
        raise DataError("task.members: greedy selection and task.temperature=fit need two validation examples or more")
    return first, second


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A temperature, and the examples that it was fitted on in words, empty if it was given."""

    value: float
    fitted_on: str = ""


def fit_on_half(chosen: Selection, outputs: Outputs, log_p: Array, seed: int) -> tuple[Temperature, Selection]:
    """Return the temperature that fits combined log-probabilities (N, C) best, and the selection with what is scored.

    It is fitted on the half of validation that greedy selection does not use. Without greedy selection the other half
    is left to score it; with it nothing is, and the words say so.
    """
    first, second = halves(outputs, seed)
    value = fit_temperature(log_p[second], outputs.labels[second])
    if chosen.fitted is None:
        words = f"the other {len(second)} validation examples"
        return Temperature(value=value, fitted_on=words), replace(chosen, scored=first)
    return Temperature(value=value, fitted_on="the same examples, for the others selected the members"), chosen
