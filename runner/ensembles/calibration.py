"""Calibration of probabilities: scores, temperature scaling, and the halves of a split that keep its fit honest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.engine.metrics import calibration, calibration_error, errors_by_confidence, risk_coverage, squared_errors

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
# Numbers of an array that a pass computes with at once
_CHUNK = 4_000_000
# The range in which a temperature is searched
_LOWEST, _HIGHEST = 1e-3, 1e3


@dataclass(frozen=True, kw_only=True)
class PredictionScores:
    """Scores of predictions, as `task=evaluate` computes them; NaN where they are not defined."""

    accuracy: float
    nll: float
    ece: float
    brier: float
    aurc: float


def prediction_scores(log_p: Array, labels: Labels) -> PredictionScores:
    """Return the scores of log-probabilities (N, C)."""
    right, nll = predicted_classes(log_p) == labels, label_nll(log_p, labels)
    if not len(labels):
        return PredictionScores(accuracy=math.nan, nll=math.nan, ece=math.nan, brier=math.nan, aurc=math.nan)
    sums = [_sums(log_p[part], labels[part]) for part in chunks(len(labels), log_p.shape[1])]
    bins, wrong, squares = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))
    return PredictionScores(
        accuracy=float(right.mean()),
        nll=float(nll.mean()),
        ece=float(calibration_error(bins)),
        brier=float(squares) / len(labels),
        aurc=float(risk_coverage(wrong).mean()),
    )


def _sums(log_p: Array, labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of ECE, AURC and Brier score over some examples, in float64."""
    batch, of = torch.tensor(log_p), torch.tensor(labels)
    return calibration(batch, of).double(), errors_by_confidence(batch, of).double(), squared_errors(batch, of).sum()


def chunks(examples: int, numbers: int) -> list[slice]:
    """Return slices of the examples, each with so few that an array with so many numbers an example stays small."""
    size = max(1, _CHUNK // max(1, numbers))
    return [slice(start, start + size) for start in range(0, examples, size)]


def predicted_classes(log_p: Array) -> Labels:
    """Return the most probable classes (N,), the first of equal ones; -1, which is no class, where a number is NaN."""
    found: Labels = log_p.argmax(1)
    # The largest of numbers with a NaN is NaN
    found[np.isnan(log_p.max(1, initial=-np.inf))] = -1
    return found


def label_nll(log_p: Array, labels: Labels) -> Array:
    """Return the negative log-likelihood (N,) of the labels."""
    # Without the sign of 0
    found: Array = 0.0 - log_p[np.arange(len(labels)), labels]
    return found


def with_temperature(log_p: Array, temperature: float) -> Array:
    """Return log-probabilities (N, C) of logits or log-probabilities divided by a temperature; those at 1 unchanged."""
    if temperature == 1:
        return log_p
    scaled = log_p / temperature
    return scaled - log_sum_exp(scaled)[:, None]


def log_sum_exp(values: Array) -> Array:
    """Return the logarithm (N,) of the sum of the exponentials of each row."""
    top = values.max(1, keepdims=True, initial=-np.inf)
    # A row of -inf has the sum 0
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        found: Array = np.log(np.exp(values - top).sum(1)) + top[:, 0]
    return found


def fit_temperature(log_p: Array, labels: Labels) -> float:
    """Return the temperature with the smallest negative log-likelihood (Guo et al. 2017, arXiv 1706.04599).

    The likelihood is concave in 1 / T, so that the root of its derivative is the only maximum. It is 1 where there is
    none: without examples, if every label has the largest logit, or if no temperature changes anything. Examples whose
    label is impossible, or with NaN, do not count.

    Args:
        log_p: Log-probabilities or logits (N, C).
        labels: Labels (N,).
    """
    from scipy.optimize import brentq

    own = log_p[np.arange(len(labels)), labels]
    counted = np.isfinite(own) & ~np.isnan(log_p).any(1) & ~np.isposinf(log_p).any(1)
    # Differences from the label's own logit: the derivative is then a sum without cancellation
    logits = log_p[counted] - own[counted, None]
    if not len(logits):
        return 1.0
    ends = -math.log(_HIGHEST), -math.log(_LOWEST)
    low, high = (_slope(logits, end) for end in ends)
    if not low < 0 < high:
        return 1.0
    return math.exp(-float(brentq(lambda at: _slope(logits, at), *ends, xtol=1e-12)))


def _slope(logits: Array, log_inverse: float) -> float:
    """Return the derivative of the negative log-likelihood by 1 / T, over the examples, at a logarithm of 1 / T.

    `logits` (N, C) are 0 at the labels.
    """
    total, inverse = 0.0, math.exp(log_inverse)
    for part in chunks(len(logits), logits.shape[1]):
        each = logits[part]
        weights = np.exp(inverse * (each - each.max(1, keepdims=True)))
        weights /= weights.sum(1, keepdims=True)
        total += float((weights * np.where(weights > 0, each, 0.0)).sum())
    return total


def disjoint_halves(labels: Labels, seed: int) -> tuple[Labels, Labels]:
    """Return the sorted indices of two halves of the examples, each with half of every class.

    The sizes differ by one at most, of each class and of all; of one example the second half is empty.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[::2]), np.sort(order[1::2])
