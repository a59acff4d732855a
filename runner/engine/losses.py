"""The forms of a loss, and predictions: shared by losses, prediction methods and evaluation.

B examples, K classes; logits and log-probabilities are (B, K), labels (B,) int64, or (B, K) float where a mix made them
soft.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]  # (logits (B, K), labels (B,) or (B, K)) -> mean loss ()


@dataclass(frozen=True)
class Loss:
    """A loss in the forms that training and evaluation need; calling it gives the one that training minimizes.

    `train` has label smoothing, `totals` has none: (logits (B, K), labels (B,)) -> (sum of losses (), sum of their
    weights ()). The loss of a split is the quotient of the sums over its batches, whatever their size.
    `log_probabilities` turns logits into log-probabilities (B, K); it is None if outputs are scores without a
    likelihood. `weight` gives the sum of the weights () of some labels in the mean of `train`; None if that is their
    number; a float64. A component may also return `train` alone; see `as_loss`.
    """

    train: LossFunction
    totals: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    log_probabilities: Callable[[Tensor], Tensor] | None
    weight: Callable[[Tensor], Tensor] | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss () that training minimizes."""
        return self.train(logits, labels)


@dataclass(frozen=True)
class Prediction:
    """The prediction for some images: logits (B, K), which the loss is computed from, and log-probabilities (B, K).

    Over several views `logits` is the mean of theirs, and `log_p` the logarithm of their mean probability; it is None
    if the loss has no probabilities. Accuracy is that of `log_p`, else of `logits`. Without `logits` the softmax is
    assumed, and the loss is computed from `log_p`.
    """

    logits: Tensor | None
    log_p: Tensor | None


def as_loss(given: Loss | LossFunction) -> Loss:
    """Return a loss in all its forms; that of a plain function is a mean over examples, with softmax probabilities."""
    if isinstance(given, Loss):
        return given

    def totals(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mean = given(logits, labels)
        return mean * len(labels), mean.new_full((), len(labels))

    return Loss(train=given, totals=totals, log_probabilities=log_softmax)


def log_softmax(logits: Tensor) -> Tensor:
    """Return the log-softmax (B, K) of logits, in at least float32."""
    return at_least_float32(logits).log_softmax(1)


def at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32, others unchanged."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
