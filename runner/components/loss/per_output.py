"""Losses of each output: binary cross-entropy, hinge loss and squared error."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from runner.components.loss.class_weights import ClassWeights, resolve_weights, soft_labels, sums, weighted_loss
from runner.engine.losses import Loss, LossFunction, at_least_float32
from runner.registry import register
from runner.schema import Positive, Unit


@register("loss")
def bce(
    num_classes: int,
    class_counts: Tensor | None,
    *,
    label_smoothing: Unit,
    positive_weight: Positive,
    class_weights: ClassWeights,
) -> Loss:
    """Return binary cross-entropy with one sigmoid per class, averaged over examples and classes.

    The mean over K classes makes gradients about K times smaller than those of `cross_entropy`. A class's probability
    is its sigmoid divided by the sum of all.

    Args:
        num_classes: Number of classes K.
        class_counts: Number of training examples of each class (K,), for `balanced`.
        label_smoothing: Share of the way from each target to 1/2, in [0, 1].
        positive_weight: Factor on the terms of positive classes, > 0.
        class_weights: Weights of the examples of each class, > 0, None for equal ones, or `balanced`.

    Returns:
        Mean loss, a 0-dim tensor; ln 2 for zero logits and weight 1.
    """
    by_class = resolve_weights(class_weights, class_counts, num_classes)

    def terms(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        z = at_least_float32(logits)
        targets = soft_labels(labels, z) * (1 - smoothing) + smoothing / 2
        positive, negative = -F.logsigmoid(z), -F.logsigmoid(-z)
        return positive_weight * targets * positive + (1 - targets) * negative

    if by_class is not None:
        plain, smoothed = (_linear_bce(share, positive_weight) for share in (0.0, label_smoothing))
        return weighted_loss(plain, by_class, _log_of_normalized_sigmoids, train=smoothed)
    return Loss(
        train=lambda logits, labels: terms(logits, labels, label_smoothing).mean(),
        totals=sums(lambda logits, labels: terms(logits, labels, 0.0).mean(1)),
        log_probabilities=_log_of_normalized_sigmoids,
    )


def _linear_bce(smoothing: float, positive_weight: float) -> LossFunction:
    """Return the mean over outputs (B,) of binary cross-entropy, in a form that is linear in soft labels."""

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        positive, negative = -positive_weight * F.logsigmoid(z), -F.logsigmoid(-z)
        targets = soft_labels(labels, z)
        others = (positive * smoothing / 2 + negative * (1 - smoothing / 2)).mean(1)
        return targets.sum(1) * others + (1 - smoothing) * (targets * (positive - negative)).mean(1)

    return each


@register("loss")
def hinge(num_classes: int, class_counts: Tensor | None, *, margin: Positive, class_weights: ClassWeights) -> Loss:
    """Return multi-class hinge loss: `max(0, margin + z_j - z_y)` summed over the wrong classes j.

    Memory is O(B K^2) for soft labels and O(B K) for hard labels (Weston and Watkins 1999). Outputs are scores, not
    probabilities: there is no `val/nll`.

    Args:
        num_classes: Number of classes K.
        class_counts: Number of training examples of each class (K,), for `balanced`.
        margin: Required lead of the right class's logit, > 0.
        class_weights: One weight > 0 per class, None for equal ones, or `balanced`.

    Returns:
        Mean loss, a 0-dim tensor; `margin * (K - 1)` for zero logits.
    """
    by_class = resolve_weights(class_weights, class_counts, num_classes)

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        if labels.ndim == 1:
            return (margin + z - z.gather(1, labels[:, None])).relu().sum(1) - margin
        # The label's own term equals the margin
        pairs = (margin + z[:, None, :] - z[:, :, None]).relu().sum(2) - margin
        return (labels * pairs).sum(1)

    if by_class is not None:
        return weighted_loss(each, by_class, None)
    return Loss(lambda logits, labels: each(logits, labels).mean(), sums(each), None)


@register("loss")
def mse(num_classes: int, class_counts: Tensor | None, *, class_weights: ClassWeights) -> Loss:
    """Return mean squared error over examples and outputs.

    Class labels become one-hot targets (the Brier score, without a softmax); real targets (B, K) are used as they are.
    Outputs are scores, not probabilities: there is no `val/nll`.

    Args:
        num_classes: Number of classes K.
        class_counts: Number of training examples of each class (K,), for `balanced`.
        class_weights: Weights of the examples of each class, > 0, None for equal ones, or `balanced`.

    Returns:
        Mean loss, a 0-dim tensor; 1/K for zero logits and class labels.
    """
    by_class = resolve_weights(class_weights, class_counts, num_classes)

    def train(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        return F.mse_loss(z, soft_labels(labels, z))

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        z = at_least_float32(logits)
        return (z - soft_labels(labels, z)).square().mean(1)

    def of_soft(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return each(logits, labels) * (labels * weights).sum(1)

    if by_class is not None:
        return weighted_loss(each, by_class, None, of_soft=of_soft)
    return Loss(train, sums(each), None)


def _log_of_normalized_sigmoids(logits: Tensor) -> Tensor:
    """Return the logarithm (B, K) of each class's sigmoid divided by the sum over classes."""
    # The softmax of the logarithms divides by the sum
    return F.logsigmoid(at_least_float32(logits)).log_softmax(1)
