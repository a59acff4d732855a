"""Losses: `(logits (B, K), labels (B,) int64 or (B, K) float) -> mean loss`, computed in at least float32.

Soft labels (B, K) are class probabilities. A formula that is defined for one class becomes its expectation over them.
`val/loss` is the loss without label smoothing, mixing and penalties. `val/nll` is the negative log-likelihood of the
probabilities that a loss trains: softmax, for bce the sigmoids divided by their sum; hinge and mse have none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.losses import Loss, LossFunction, at_least_float32, log_softmax
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NonNegative, Positive, Unit

_ClassWeights = list[Positive] | Literal["balanced"] | None


@register("loss")
def cross_entropy(
    num_classes: int, class_counts: Tensor | None, *, label_smoothing: Unit, class_weights: _ClassWeights
) -> Loss:
    """Return softmax cross-entropy with optional label smoothing and class weights.

    With class weights it is the weighted mean over examples and classes. That equals PyTorch's for plain hard labels,
    and is ln K for a uniform prediction in every case (PyTorch's is not, with smoothing). The weighted mean over
    micro-batches (`accumulate`) differs slightly from that of the whole batch; `val/loss` is that of the whole split.

    Args:
        num_classes: Number of classes K.
        class_counts: Number of training examples of each class (K,), for `balanced`.
        label_smoothing: Share of each label spread evenly over all K classes, in [0, 1] (arXiv 1512.00567, section 7).
        class_weights: One weight > 0 per class, None for equal ones, or `balanced`: n / (K n_c), as in scikit-learn.

    Returns:
        Mean loss, a 0-dim tensor; ln K for a uniform prediction.

    Raises:
        ConfigError: The number of weights is not the number of classes, or `balanced` meets an empty class.
    """
    by_class = _resolve_weights(class_weights, class_counts, num_classes)
    if by_class is None:
        return _unweighted_cross_entropy(label_smoothing)
    # Copied to the device once
    weights = cache(lambda device: torch.tensor(by_class, device=device))

    def totals(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        terms = -log_softmax(logits)
        targets = _soft_labels(labels, terms) * (1 - smoothing) + smoothing / num_classes
        weighted = targets * weights(logits.device)
        return (weighted * terms).sum(), weighted.sum()

    def train(logits: Tensor, labels: Tensor) -> Tensor:
        total, weight = totals(logits, labels, label_smoothing)
        return total / weight

    return Loss(train, totals, log_softmax)


def _unweighted_cross_entropy(smoothing: float) -> Loss:
    """Return PyTorch's softmax cross-entropy."""

    def train(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=smoothing)

    def totals(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _with_count(F.cross_entropy(at_least_float32(logits), labels, reduction="sum"), labels)

    return Loss(train, totals, log_softmax)


@register("loss")
def bce(*, label_smoothing: Unit, positive_weight: Positive) -> Loss:
    """Return binary cross-entropy with one sigmoid per class, averaged over examples and classes.

    The mean over K classes makes gradients about K times smaller than those of `cross_entropy`. A class's probability
    is its sigmoid divided by the sum of all.

    Args:
        label_smoothing: Share of the way from each target to 1/2, in [0, 1].
        positive_weight: Factor on the terms of positive classes, > 0.

    Returns:
        Mean loss, a 0-dim tensor; ln 2 for zero logits and weight 1.
    """

    def terms(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        z = at_least_float32(logits)
        targets = _soft_labels(labels, z) * (1 - smoothing) + smoothing / 2
        positive, negative = -F.logsigmoid(z), -F.logsigmoid(-z)
        return positive_weight * targets * positive + (1 - targets) * negative

    return Loss(
        train=lambda logits, labels: terms(logits, labels, label_smoothing).mean(),
        totals=_sums(lambda logits, labels: terms(logits, labels, 0.0).mean(1)),
        log_probabilities=_log_of_normalized_sigmoids,
    )


@register("loss")
def focal(*, gamma: NonNegative) -> Loss:
    """Return focal loss: cross-entropy times `(1 - p) ** gamma`, p the label's probability (arXiv 1708.02002, eq. 4).

    Args:
        gamma: Focusing exponent, >= 0; 0 is cross-entropy.

    Returns:
        Mean loss, a 0-dim tensor; `(1 - 1/K) ** gamma * ln K` for zero logits.
    """

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        # Powers below 1 have no gradient at zero
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return -(_soft_labels(labels, log_p) * missing**gamma * log_p).sum(1)

    return Loss(lambda logits, labels: each(logits, labels).mean(), _sums(each), log_softmax)


@register("loss")
def hinge(*, margin: Positive) -> Loss:
    """Return multi-class hinge loss: `max(0, margin + z_j - z_y)` summed over the wrong classes j.

    Memory is O(B K^2) for soft labels and O(B K) for hard labels (Weston and Watkins 1999). Outputs are scores, not
    probabilities: there is no `val/nll`.

    Args:
        margin: Required lead of the right class's logit, > 0.

    Returns:
        Mean loss, a 0-dim tensor; `margin * (K - 1)` for zero logits.
    """

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        if labels.ndim == 1:
            return (margin + z - z.gather(1, labels[:, None])).relu().sum(1) - margin
        # The label's own term equals the margin
        pairs = (margin + z[:, None, :] - z[:, :, None]).relu().sum(2) - margin
        return (labels * pairs).sum(1)

    return Loss(lambda logits, labels: each(logits, labels).mean(), _sums(each), None)


@register("loss")
def mse() -> Loss:
    """Return mean squared error over examples and outputs.

    Class labels become one-hot targets (the Brier score, without a softmax); real targets (B, K) are used as they are.
    Outputs are scores, not probabilities: there is no `val/nll`.

    Returns:
        Mean loss, a 0-dim tensor; 1/K for zero logits and class labels.
    """

    def train(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        return F.mse_loss(z, _soft_labels(labels, z))

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        return (z - _soft_labels(labels, z)).square().mean(1)

    return Loss(train, _sums(each), None)


def _sums(each: LossFunction) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the totals of a loss (B,) of each example, all with weight 1."""
    return lambda logits, labels: _with_count(each(logits, labels).sum(), labels)


def _with_count(total: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sum of losses () and the number of examples as their weight ()."""
    return total, total.new_full((), len(labels))


def _log_of_normalized_sigmoids(logits: Tensor) -> Tensor:
    """Return the logarithm (B, K) of each class's sigmoid divided by the sum over classes."""
    # The softmax of the logarithms divides by the sum
    return F.logsigmoid(at_least_float32(logits)).log_softmax(1)


def _resolve_weights(
    given: list[float] | Literal["balanced"] | None, counts: Tensor | None, num_classes: int
) -> list[float] | None:
    """Return one weight per class, or None for equal weights; `balanced` weights come from the counts (K,)."""
    if given == "balanced":
        return _balanced_weights(counts)
    if given is not None and len(given) != num_classes:
        raise ConfigError(
            f"loss.class_weights: got {len(given)} numbers, must be one for each of {num_classes} classes"
        )
    return given


def _balanced_weights(counts: Tensor | None) -> list[float]:
    """Return n / (K * n_c) for each class, from the number of its training examples."""
    if counts is None or int(counts.min()) == 0:
        empty = "the training split is unknown" if counts is None else f"class {int(counts.argmin())} has none"
        raise ConfigError(f"loss.class_weights: got 'balanced', must have training examples of every class; {empty}")
    weights: list[float] = (counts.sum() / (len(counts) * counts.double())).tolist()
    return weights


def _initial_loss(loss: LossFunction, labels: Tensor, num_classes: int) -> Tensor:
    """Return the loss of zero logits, the starting point of a model with a small classifier.

    For classifiers it depends only on the number of classes: ln K for cross-entropy, smoothed or weighted or not.
    """
    return loss(torch.zeros(len(labels), num_classes, device=labels.device), labels)


def _soft_labels(labels: Tensor, like: Tensor) -> Tensor:
    """Return hard labels as one-hot rows and soft labels unchanged, (B, K) in the dtype of the logits `like`."""
    hot = F.one_hot(labels, like.shape[1]) if labels.ndim == 1 else labels
    return hot.to(like.dtype)
