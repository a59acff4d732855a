"""A linear classifier on features: logistic regression whose L2 penalty is chosen on validation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Labels = NDArray[np.int64]
# Penalties L2 that are tried, largest first: the loss is the mean cross-entropy + L2 / 2 * |weights|^2
PENALTIES = tuple(10.0**power for power in range(1, -6, -1))
_ITERATIONS = 1000


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on features, with its scores on validation.

    Attributes:
        accuracy: The share of validation examples that it classifies correctly.
        nll: Its negative log-likelihood on the validation examples of classes that training has.
        penalty: The L2 penalty with the smallest `nll`.
        examples: The number of validation examples.
    """

    accuracy: float
    nll: float
    penalty: float
    examples: int

    @property
    def standard_error(self) -> float:
        """Return the standard error of the accuracy over the validation examples."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.examples)


def fit_linear_probe(train: tuple[_Array, _Labels], val: tuple[_Array, _Labels]) -> LinearProbe:
    """Return the logistic regression on standardized features (N, D) that predicts validation best.

    Args:
        train: Features and labels, of at least two classes.
        val: Features and labels; classes that training lacks are counted as errors.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train[0])
    inputs, validation = scaler.transform(train[0]), scaler.transform(val[0])
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    found = []
    with warnings.catch_warnings():
        # A small penalty on separable classes has its minimum far away; the weights until then are as good
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in PENALTIES:
            model.set_params(C=1 / (penalty * len(inputs))).fit(inputs, train[1])
            found.append(_scored(model, validation, val[1], penalty))
    return min(found, key=lambda each: each.nll)


def _scored(model: Any, inputs: _Array, labels: _Labels, penalty: float) -> LinearProbe:
    """Return a fitted classifier with its scores on validation."""
    logits = model.decision_function(inputs)
    logits = np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    places = np.searchsorted(model.classes_, labels).clip(max=len(model.classes_) - 1)
    known = model.classes_[places] == labels
    right = (log_p.argmax(1) == places) & known
    nll = -log_p[np.arange(len(labels)), places][known].mean() if known.any() else math.inf
    return LinearProbe(float(right.mean()), float(nll), penalty, len(labels))
