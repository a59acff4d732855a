"""The loss of a model that gives every example the same logits, in closed form, for each loss of the catalogue.

With zero logits: ln K for cross-entropy, whatever the balance of the classes and their weights; margin (K - 1) for the
multi-class hinge loss; (1 - 1/K)^gamma ln K for focal loss; ln 2 for binary cross-entropy; 1/K for squared error of
one-hot labels. With the logarithms of the class frequencies as logits: the entropy of the classes, for cross-entropy.

The formulas are written anew here: they check the losses that training uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Terms = Callable[[_Array, Mapping[str, Any]], _Array]


def expected_loss(loss: Mapping[str, Any], shares: _Array, counts: _Array, logits: _Array) -> float | None:
    """Return the mean loss if all examples get the same logits; None for a loss without a formula.

    Args:
        loss: The loss with its knobs; label smoothing is not counted.
        shares: The share (K,) of each class among the examples.
        counts: The number (K,) of training examples of each class, for balanced weights.
        logits: The logits (K,).
    """
    terms = _TERMS.get(loss["name"])
    if terms is None:
        return None
    weights = shares * _class_weights(loss.get("class_weights"), counts)
    return float((weights * terms(logits, loss)).sum() / weights.sum())


def entropy(shares: _Array) -> float:
    """Return the entropy of class frequencies (K,) in nats: the least cross-entropy without looking at the inputs."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def has_softmax(name: str) -> bool:
    """Return True if a loss of the catalogue is a function of the softmax."""
    return name in ("cross_entropy", "focal", "poly")


def _class_weights(given: Any, counts: _Array) -> _Array:
    """Return one weight per class."""
    if given == "balanced":
        return np.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)), dtype=np.float64)
    return np.ones(len(counts)) if given is None else np.array(given, dtype=np.float64)


def _log_softmax(logits: _Array) -> _Array:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _cross_entropy(logits: _Array, knobs: Mapping[str, Any]) -> _Array:
    return -_log_softmax(logits)


def _poly(logits: _Array, knobs: Mapping[str, Any]) -> _Array:
    log_p = _log_softmax(logits)
    return np.asarray(-log_p + knobs["epsilon"] * (1 - np.exp(log_p)))


def _focal(logits: _Array, knobs: Mapping[str, Any]) -> _Array:
    log_p, alpha = _log_softmax(logits), knobs["alpha"]
    if isinstance(alpha, float):
        alpha = [1 - alpha, alpha]
    factors = np.ones(len(logits)) if alpha is None else np.array(alpha, dtype=np.float64)
    return np.asarray(-factors * (1 - np.exp(log_p)) ** knobs["gamma"] * log_p)


def _bce(logits: _Array, knobs: Mapping[str, Any]) -> _Array:
    positive, negative = np.logaddexp(0, -logits), np.logaddexp(0, logits)
    return np.asarray((negative.sum() - negative + knobs["positive_weight"] * positive) / len(logits))


def _hinge(logits: _Array, knobs: Mapping[str, Any]) -> _Array:
    pairs = np.maximum(0, knobs["margin"] + logits[None, :] - logits[:, None])
    return np.asarray(pairs.sum(1) - knobs["margin"])


def _mse(logits: _Array, knobs: Mapping[str, Any]) -> _Array:
    return np.asarray(((logits[None, :] - np.eye(len(logits))) ** 2).mean(1))


_TERMS: dict[str, _Terms] = {
    "cross_entropy": _cross_entropy,
    "poly": _poly,
    "focal": _focal,
    "bce": _bce,
    "hinge": _hinge,
    "mse": _mse,
}
