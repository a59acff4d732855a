"""Losses: `(logits (B, K), labels (B,) int64 or (B, K) float) -> mean loss`, computed in at least float32.

Soft labels (B, K) are class probabilities. A formula that is defined for one class becomes its expectation over them.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.contracts import Loss
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NonNegative, Positive, Unit


@register("loss")
def cross_entropy(num_classes: int, *, label_smoothing: Unit, class_weights: list[Positive] | None) -> Loss:
    """Return softmax cross-entropy with optional label smoothing and class weights.

    With class weights it is the weighted mean over examples and classes. That equals PyTorch's for plain hard labels,
    and is ln K for a uniform prediction in every case (PyTorch's is not, with smoothing). The weighted mean over
    micro-batches (`accumulate`) differs slightly from that of the whole batch.

    Args:
        num_classes: Number of classes K.
        label_smoothing: Share of each label spread evenly over all K classes, in [0, 1] (arXiv 1512.00567, section 7).
        class_weights: One weight > 0 per class, or None for equal weights.

    Returns:
        Mean loss, a 0-dim tensor; ln K for a uniform prediction.

    Raises:
        ConfigError: The number of weights is not the number of classes.
    """
    if class_weights is None:
        return lambda logits, labels: F.cross_entropy(
            _at_least_float32(logits), labels, label_smoothing=label_smoothing
        )
    if len(class_weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights: got {len(class_weights)} numbers, must be one for each of {num_classes} classes"
        )
    # Copied to the device once
    weights = cache(lambda device: torch.tensor(class_weights, device=device))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        terms = -_at_least_float32(logits).log_softmax(1)
        targets = _soft_labels(labels, terms) * (1 - label_smoothing) + label_smoothing / num_classes
        weighted = targets * weights(logits.device)
        return (weighted * terms).sum() / weighted.sum()

    return loss


@register("loss")
def bce(*, label_smoothing: Unit, positive_weight: Positive) -> Loss:
    """Return binary cross-entropy with one sigmoid per class, averaged over examples and classes.

    The mean over K classes makes gradients about K times smaller than those of `cross_entropy`.

    Args:
        label_smoothing: Share of the way from each target to 1/2, in [0, 1].
        positive_weight: Factor on the terms of positive classes, > 0.

    Returns:
        Mean loss, a 0-dim tensor; ln 2 for zero logits and weight 1.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        z = _at_least_float32(logits)
        targets = _soft_labels(labels, z) * (1 - label_smoothing) + label_smoothing / 2
        positive, negative = -F.logsigmoid(z), -F.logsigmoid(-z)
        return (positive_weight * targets * positive + (1 - targets) * negative).mean()

    return loss


@register("loss")
def focal(*, gamma: NonNegative) -> Loss:
    """Return focal loss: cross-entropy times `(1 - p) ** gamma`, p the label's probability (arXiv 1708.02002, eq. 4).

    Args:
        gamma: Focusing exponent, >= 0; 0 is cross-entropy.

    Returns:
        Mean loss, a 0-dim tensor; `(1 - 1/K) ** gamma * ln K` for zero logits.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _at_least_float32(logits).log_softmax(1)
        # Powers below 1 have no gradient at zero
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return -(_soft_labels(labels, log_p) * missing**gamma * log_p).sum(1).mean()

    return loss


@register("loss")
def hinge(*, margin: Positive) -> Loss:
    """Return multi-class hinge loss: `max(0, margin + z_j - z_y)` summed over the wrong classes j.

    Memory is O(B K^2) for soft labels and O(B K) for hard labels (Weston and Watkins 1999).

    Args:
        margin: Required lead of the right class's logit, > 0.

    Returns:
        Mean loss, a 0-dim tensor; `margin * (K - 1)` for zero logits.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        z = _at_least_float32(logits)
        if labels.ndim == 1:
            return ((margin + z - z.gather(1, labels[:, None])).relu().sum(1) - margin).mean()
        # The label's own term equals the margin
        each = (margin + z[:, None, :] - z[:, :, None]).relu().sum(2) - margin
        return (labels * each).sum(1).mean()

    return loss


@register("loss")
def mse() -> Loss:
    """Return mean squared error over examples and outputs.

    Class labels become one-hot targets (the Brier score, without a softmax); real targets (B, K) are used as they are.

    Returns:
        Mean loss, a 0-dim tensor; 1/K for zero logits and class labels.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        z = _at_least_float32(logits)
        return F.mse_loss(z, _soft_labels(labels, z))

    return loss


def _initial_loss(loss: Loss, labels: Tensor, num_classes: int) -> Tensor:
    """Return the loss of zero logits, the starting point of a model with a small classifier.

    For classifiers it depends only on the number of classes: ln K for cross-entropy, smoothed or weighted or not.
    """
    return loss(torch.zeros(len(labels), num_classes, device=labels.device), labels)


def _at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32, others unchanged."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _soft_labels(labels: Tensor, like: Tensor) -> Tensor:
    """Return hard labels as one-hot rows and soft labels unchanged, (B, K) in the dtype of the logits `like`."""
    hot = F.one_hot(labels, like.shape[1]) if labels.ndim == 1 else labels
    return hot.to(like.dtype)
