"""Losses: `(logits (B, K), labels (B,) int64 or (B, K) float) -> mean loss`, computed in at least float32.

Soft labels (B, K) are shares of the classes; where a formula knows one class only, the loss is its mean over them.
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
    """Return softmax cross-entropy.

    Smoothing gives that share of every label, hard or soft, to all K classes evenly (arXiv 1512.00567, section 7).
    With class weights it is the weighted mean of the terms of all examples and classes: torch's for plain hard labels,
    and ln K for a uniform prediction in every case (torch's is not, with smoothing). Such a mean over micro-batches
    (`accumulate`) is not quite the whole batch's. Raises ConfigError for weights that are not one per class.
    """
    if class_weights is None:
        return lambda logits, labels: F.cross_entropy(precise(logits), labels, label_smoothing=label_smoothing)
    if len(class_weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights: got {len(class_weights)} numbers, must be one for each of {num_classes} classes"
        )
    weights = cache(lambda device: torch.tensor(class_weights, device=device))  # to the device once

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        terms = -precise(logits).log_softmax(1)
        targets = shares(labels, terms) * (1 - label_smoothing) + label_smoothing / num_classes
        weighted = targets * weights(logits.device)
        return (weighted * terms).sum() / weighted.sum()

    return loss


@register("loss")
def bce(*, label_smoothing: Unit, positive_weight: Positive) -> Loss:
    """Return the mean over examples and classes of binary cross-entropies: each class has a sigmoid of its own.

    Smoothing moves each target that share of the way to 1/2. `positive_weight` multiplies the terms of the classes
    that are there. Before training it is ln 2 (with weight 1).
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        z = precise(logits)
        targets = shares(labels, z) * (1 - label_smoothing) + label_smoothing / 2
        positive, negative = -F.logsigmoid(z), -F.logsigmoid(-z)
        return (positive_weight * targets * positive + (1 - targets) * negative).mean()

    return loss


@register("loss")
def focal(*, gamma: NonNegative) -> Loss:
    """Return cross-entropy times `(1 - p) ** gamma`, p being the probability of the label (arXiv 1708.02002, eq. 4).

    Before training it is `(1 - 1/K) ** gamma * ln K`; with gamma 0 it is cross-entropy.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = precise(logits).log_softmax(1)
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)  # a root has no slope at zero
        return -(shares(labels, log_p) * missing**gamma * log_p).sum(1).mean()

    return loss


@register("loss")
def hinge(*, margin: Positive) -> Loss:
    """Return the sum over the wrong classes of `max(0, margin + z_j - z_y)` (Weston and Watkins 1999).

    Before training it is `margin * (K - 1)`. Memory is B K K for soft labels, B K for hard ones.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        z = precise(logits)
        if labels.ndim == 1:
            return ((margin + z - z.gather(1, labels[:, None])).relu().sum(1) - margin).mean()
        each = (margin + z[:, None, :] - z[:, :, None]).relu().sum(2) - margin  # the label's own term is the margin
        return (labels * each).sum(1).mean()

    return loss


@register("loss")
def mse() -> Loss:
    """Return the mean over examples and outputs of `(output - target) ** 2`.

    Class labels become one-hot targets (Brier's score, of outputs without a softmax), 1/K before training; real targets
    (B, K) are taken as they are, `mean(y ** 2)` before training.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        z = precise(logits)
        return F.mse_loss(z, shares(labels, z))

    return loss


def initial(loss: Loss, labels: Tensor, num_classes: int) -> Tensor:
    """Return the loss of outputs that are all zero: what a model with a small head starts from.

    For classifiers it depends on the number of classes alone, so any labels will do: ln K for cross-entropy, however
    smoothed or weighted.
    """
    return loss(torch.zeros(len(labels), num_classes, device=labels.device), labels)


def precise(logits: Tensor) -> Tensor:
    """Return logits in float32 where they came in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def shares(labels: Tensor, like: Tensor) -> Tensor:
    """Return hard labels as one-hot rows, and soft ones as they are, in the type of the logits `like` (B, K)."""
    hot = F.one_hot(labels, like.shape[1]) if labels.ndim == 1 else labels
    return hot.to(like.dtype)
