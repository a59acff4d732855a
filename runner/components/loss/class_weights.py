"""Weights of classes, and the means over examples that use them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.losses import Loss, LossFunction
from runner.errors import ConfigError
from runner.schema import Positive

ClassWeights = list[Positive] | Literal["balanced"] | None
_Totals = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def resolve_weights(given: ClassWeights, counts: Tensor | None, num_classes: int) -> list[float] | None:
    """Return one weight per class, or None for equal weights; `balanced` weights come from the counts (K,).

    Raises:
        ConfigError: The number of weights is not the number of classes, or `balanced` meets an empty class.
    """
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


def on_device(by_class: list[float]) -> Callable[[torch.device], Tensor]:
    """Return a function of the device that gives the numbers as a tensor (K,), copied to it once."""
    return cache(lambda device: torch.tensor(by_class, device=device))


def weighted_loss(
    each: LossFunction,
    by_class: list[float],
    log_probabilities: Callable[[Tensor], Tensor] | None,
    *,
    train: LossFunction | None = None,
    of_soft: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Loss:
    """Return the mean of a loss over examples that weigh as much as their classes.

    Args:
        each: Loss (B,) of each example. For soft labels (B, K) it is linear in them, unless there is `of_soft`.
        by_class: One weight per class.
        log_probabilities: That of `Loss`.
        train: `each` with label smoothing, where a loss has it.
        of_soft: (logits, labels (B, K), weights (K,)) -> loss (B,) of each example times its weight.
    """
    weights = on_device(by_class)

    def totals(logits: Tensor, labels: Tensor, each: LossFunction = each) -> tuple[Tensor, Tensor]:
        by_class = weights(logits.device)
        if labels.ndim == 1:
            own = by_class[labels]
            return (own * each(logits, labels)).sum(), own.sum()
        weighted = labels * by_class
        terms = of_soft(logits, labels, by_class) if of_soft else each(logits, weighted)
        return terms.sum(), weighted.sum()

    def mean(logits: Tensor, labels: Tensor) -> Tensor:
        total, weight = totals(logits, labels, train or each)
        return total / weight

    def weight(labels: Tensor) -> Tensor:
        by_class = weights(labels.device).double()
        return by_class[labels].sum() if labels.ndim == 1 else (labels * by_class).sum()

    return Loss(mean, totals, log_probabilities, weight)


def sums(each: LossFunction) -> _Totals:
    """Return the totals of a loss (B,) of each example, all with weight 1."""
    return lambda logits, labels: with_count(each(logits, labels).sum(), labels)


def with_count(total: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sum of losses () and the number of examples as their weight ()."""
    return total, total.new_full((), len(labels))


def soft_labels(labels: Tensor, like: Tensor) -> Tensor:
    """Return hard labels as one-hot rows and soft labels unchanged, (B, K) in the dtype of the logits `like`."""
    hot = F.one_hot(labels, like.shape[1]) if labels.ndim == 1 else labels
    return hot.to(like.dtype)
