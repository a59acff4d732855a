"""Faults in the code of a run, which no override can make: the order of the examples, the reduction of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from unittest.mock import patch

import torch
from torch import Tensor

from runner.components.loss import softmax
from runner.engine.losses import Loss


class Mutant(StrEnum):
    """A fault in the code."""

    NONE = "none"
    ORDERED = "ordered"  # the examples of each epoch in the order of the files
    SUMMED = "summed"  # the sum of the losses of a batch instead of their mean


def _ordered(_seed: int, _epoch: int, count: int) -> Tensor:
    """Return the examples in the order of the files."""
    return torch.arange(count)


def _summed(made: Callable[[float], Loss]) -> Callable[[float], Loss]:
    """Return a loss that is not divided by the number of examples in training."""

    def make(smoothing: float) -> Loss:
        loss = made(smoothing)
        return replace(loss, train=lambda logits, labels: loss.train(logits, labels) * len(labels))

    return make


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """Run what is inside with a fault in the code."""
    if mutant is Mutant.ORDERED:
        with patch("runner.engine.sampling.epoch_order", _ordered):
            yield
    elif mutant is Mutant.SUMMED:
        with patch.object(softmax, "_unweighted_cross_entropy", _summed(softmax._unweighted_cross_entropy)):
            yield
    else:
        yield
