"""Losses of the softmax: cross-entropy, focal loss and poly loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.loss.class_weights import (
    ClassWeights,
    on_device,
    resolve_weights,
    soft_labels,
    sums,
    weighted_loss,
    with_count,
)
from runner.engine.losses import Loss, LossFunction, at_least_float32, log_softmax
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NonNegative, Range, Unit

_AlphaByClass = list[NonNegative]


@register("loss")
def cross_entropy(
    num_classes: int, class_counts: Tensor | None, *, label_smoothing: Unit, class_weights: ClassWeights
) -> Loss:
    """Return softmax cross-entropy with optional label smoothing and class weights.

    With class weights it is the weighted mean over examples and classes. That equals PyTorch's for plain hard labels,
    and is ln K for a uniform prediction in every case (PyTorch's is not, with smoothing).

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
    by_class = resolve_weights(class_weights, class_counts, num_classes)
    if by_class is None:
        return _unweighted_cross_entropy(label_smoothing)
    return _smoothed_loss(torch.neg, by_class, label_smoothing)


@register("loss")
def poly(
    num_classes: int,
    class_counts: Tensor | None,
    *,
    epsilon: Annotated[float, Range(-1)],
    label_smoothing: Unit,
    class_weights: ClassWeights,
) -> Loss:
    """Return poly-1 loss: cross-entropy plus `epsilon * (1 - p)`, p the label's probability (arXiv 2204.12511, eq. 6).

    It changes the first coefficient of the Taylor series of cross-entropy in 1 - p from 1 to 1 + epsilon.

    Args:
        num_classes: Number of classes K.
        class_counts: Number of training examples of each class (K,), for `balanced`.
        epsilon: Factor on 1 - p, >= -1; 0 is cross-entropy.
        label_smoothing: Share of each label spread evenly over all K classes, in [0, 1].
        class_weights: One weight > 0 per class, None for equal ones, or `balanced`.

    Returns:
        Mean loss, a 0-dim tensor; ln K + epsilon * (1 - 1/K) for a uniform prediction.
    """
    by_class = resolve_weights(class_weights, class_counts, num_classes)

    def terms(log_p: Tensor) -> Tensor:
        return -log_p - epsilon * torch.expm1(log_p)

    return _smoothed_loss(terms, by_class or [1.0] * num_classes, label_smoothing)


def _unweighted_cross_entropy(smoothing: float) -> Loss:
    """Return PyTorch's softmax cross-entropy."""

    def train(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=smoothing)

    def totals(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return with_count(F.cross_entropy(at_least_float32(logits), labels, reduction="sum"), labels)

    return Loss(train, totals, log_softmax)


def _smoothed_loss(terms_of: Callable[[Tensor], Tensor], by_class: list[float], smoothing: float) -> Loss:
    """Return the weighted mean of a loss over examples and classes, whose labels are smoothed in training.

    `terms_of` turns log-probabilities (B, K) into the loss of each class, if it is the label.
    """
    weights = on_device(by_class)

    def totals(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        terms = terms_of(log_softmax(logits))
        targets = soft_labels(labels, terms) * (1 - smoothing) + smoothing / len(by_class)
        weighted = targets * weights(logits.device)
        return (weighted * terms).sum(), weighted.sum()

    def train(logits: Tensor, labels: Tensor) -> Tensor:
        total, weight = totals(logits, labels, smoothing)
        return total / weight

    def weight_of(labels: Tensor) -> Tensor:
        by_class = weights(labels.device).double()
        own = by_class[labels].sum() if labels.ndim == 1 else (labels * by_class).sum()
        # Smoothing spreads a share of each label over all classes
        total = len(labels) if labels.ndim == 1 else labels.sum()
        return own * (1 - smoothing) + smoothing * total / len(by_class) * by_class.sum()

    return Loss(train, totals, log_softmax, weight_of)


@register("loss")
def focal(
    num_classes: int,
    class_counts: Tensor | None,
    *,
    gamma: NonNegative,
    alpha: Unit | _AlphaByClass | None,
    class_weights: ClassWeights,
) -> Loss:
    """Return focal loss: cross-entropy times `(1 - p) ** gamma`, p the label's probability (arXiv 1708.02002, eq. 4).

    `alpha` multiplies the loss of an example (eq. 5) and leaves the mean over examples as it is, so that it changes the
    size of the loss. Class weights make it a weighted mean instead.

    Args:
        num_classes: Number of classes K.
        class_counts: Number of training examples of each class (K,), for `balanced`.
        gamma: Focusing exponent, >= 0; 0 is cross-entropy.
        alpha: Factor in [0, 1] on class 1 of two, with 1 - alpha on class 0; or one factor >= 0 per class; None: 1.
        class_weights: One weight > 0 per class, None for equal ones, or `balanced`.

    Returns:
        Mean loss, a 0-dim tensor; `(1 - 1/K) ** gamma * ln K` for zero logits without alpha.

    Raises:
        ConfigError: `alpha` is one number and there are not two classes, or it is given together with class weights.
    """
    if alpha is not None and class_weights is not None:
        raise ConfigError(f"loss.alpha: got {alpha}, must be null with loss.class_weights, which weigh the classes too")
    each = _focal_terms(gamma, None if alpha is None else _alpha_by_class(alpha, num_classes))
    by_class = resolve_weights(class_weights, class_counts, num_classes)
    if by_class is None:
        return Loss(lambda logits, labels: each(logits, labels).mean(), sums(each), log_softmax)
    return weighted_loss(each, by_class, log_softmax)


def _focal_terms(gamma: float, alpha: list[float] | None) -> LossFunction:
    """Return the focal loss (B,) of each example, linear in its soft labels."""
    factors = None if alpha is None else on_device(alpha)

    def each(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        # Powers below 1 have no gradient at zero
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        targets = soft_labels(labels, log_p)
        if factors:
            targets = targets * factors(logits.device)
        return -(targets * missing**gamma * log_p).sum(1)

    return each


def _alpha_by_class(alpha: float | list[float], num_classes: int) -> list[float]:
    """Return a factor for each class."""
    if isinstance(alpha, list):
        if len(alpha) != num_classes or not any(alpha):
            wanted = f"one for each of {num_classes} classes" if any(alpha) else "above 0 for some class"
            raise ConfigError(f"loss.alpha: got {alpha}, must be {wanted}")
        return alpha
    if num_classes != 2:
        raise ConfigError(
            f"loss.alpha: got {alpha:g}, which is for two classes; must be a list of one number for each of "
            f"{num_classes} classes"
        )
    return [1 - alpha, alpha]
