"""Faults in the code of a run, which no override can make: the order of the examples, the reduction of the loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from unittest.mock import patch

import torch
from torch import Tensor

from runner.components.loss import softmax
from runner.engine.losses import Loss
from runner.engine.randomness import epoch_order

_SECONDS = 2.0


class Mutant(StrEnum):
    """A fault in the code."""

    NONE = "none"
    ORDERED = "ordered"  # the examples of each epoch in the order of the files
    SLOW = "slow"  # two seconds pass before the first batch of each epoch
    SUMMED = "summed"  # the sum of the losses of a batch instead of their mean


def _ordered(_seed: int, _epoch: int, count: int) -> Tensor:
    """Return the examples in the order of the files."""
    return torch.arange(count)


def _slow(seed: int, epoch: int, count: int) -> Tensor:
    """Return the usual order of the examples, late, as loading workers that start anew in each epoch."""
    time.sleep(_SECONDS)
    return epoch_order(seed, epoch, count)


def _summed(made: Callable[[float], Loss]) -> Callable[[float], Loss]:
    """Return a loss that is not divided by the number of examples in training."""

    def make(smoothing: float) -> Loss:
        loss = made(smoothing)
        return replace(loss, train=lambda logits, labels: loss.train(logits, labels) * len(labels))

    return make


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """Run what is inside with a fault in the code."""
    orders = {Mutant.ORDERED: _ordered, Mutant.SLOW: _slow}
    if mutant in orders:
        with patch("runner.engine.sampling.epoch_order", orders[mutant]):
            yield
    elif mutant is Mutant.SUMMED:
        with patch.object(softmax, "_unweighted_cross_entropy", _summed(softmax._unweighted_cross_entropy)):
            yield
    else:
        yield
