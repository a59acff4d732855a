"""Weights of the members of an ensemble: equal ones, and those of greedy selection."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from runner.engine.saving.ensemble_file import Combine
from runner.ensembles.calibration import Array, Labels, log_sum_exp
from runner.errors import ConfigError

_Criterion = Literal["accuracy", "nll"]
# Members that greedy selection adds, the repeated ones counted; the best number of them is kept
_ROUNDS = 50
# Differences of scores up to which they are equal: that of rounding
_EQUAL = 1e-12


def uniform(members: int) -> Array:
    """Return equal weights (M,)."""
    return np.full(members, 1 / members)


def greedy(log_p: Array, labels: Labels, how: Combine, criterion: _Criterion = "accuracy") -> Array:
    """Return the weights (M,) of greedy selection with replacement (Caruana et al. 2004).

    It begins with the best member, adds in each round the one that makes the ensemble best, a member of it again or
    another, and keeps the number of rounds with the best score. So its score on these examples is never below that of
    the best member. The other criterion decides between equal scores, then the order of the members.

    Args:
        log_p: Log-probabilities (M, N, C) of the members.
        labels: Labels (N,).
        how: How the members are combined.
        criterion: The score to select by.

    Raises:
        ConfigError: No member has predictions without NaN.
    """
    usable = [member for member in range(len(log_p)) if not np.isnan(log_p[member]).any()]
    if not usable:
        raise ConfigError("members: none has predictions without NaN; train them again")
    counts, best_counts, best = np.zeros(len(log_p)), np.zeros(len(log_p)), None
    total: Array | float = 0.0
    terms = {member: np.exp(log_p[member]) if how == "probabilities" else log_p[member] for member in usable}
    for number in range(1, _ROUNDS + 1):
        scores = {member: _score((total + terms[member]) / number, labels, how, criterion) for member in usable}
        chosen = usable[0]
        for member in usable:
            chosen = member if _is_better(scores[member], scores[chosen]) else chosen
        total = total + terms[chosen]
        counts[chosen] += 1
        if best is None or _is_better(scores[chosen], best):
            best, best_counts = scores[chosen], counts.copy()
    weights: Array = best_counts / best_counts.sum()
    return weights


def _score(total: Array, labels: Labels, how: Combine, criterion: _Criterion) -> tuple[float, float]:
    """Return the two scores of a mean probability or mean logit (N, C), the criterion first; larger is better."""
    if not len(labels):
        return 0.0, 0.0
    accuracy = float((total.argmax(1) == labels).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        own = total[np.arange(len(labels)), labels]
        likelihood = float((np.log(own) if how == "probabilities" else own - log_sum_exp(total)).mean())
    return (accuracy, likelihood) if criterion == "accuracy" else (likelihood, accuracy)


def _is_better(scores: tuple[float, float], others: tuple[float, float]) -> bool:
    """Return True if scores are better than others by more than rounding; NaN is the worst."""
    for one, other in zip(scores, others, strict=True):
        one, other = (-math.inf if math.isnan(value) else value for value in (one, other))
        if one != other and not abs(one - other) <= _EQUAL * max(1.0, abs(other)):
            return one > other
    return False
