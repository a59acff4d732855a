"""Samplers: the training examples that an epoch draws, in order, as a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from runner.engine.contracts import Sampling
from runner.engine.randomness import epoch_order, generator


class _Drawn(NamedTuple):
    """The draws of an epoch in order: examples and their random numbers.

    Attributes:
        examples: The positions (L,) int64 of the examples in the split; an example may occur several times.
        rows: The rows (L,) int64 of the epoch's tables of L uniform random numbers; no two draws share a row.
    """

    examples: Tensor
    rows: Tensor


class Sampler(Protocol):
    """Draws the examples of an epoch."""

    # The number of draws of an epoch
    length: int
    # The number of epochs that draw what there is to draw
    epochs_per_pass: int

    def draw(self, seed: int, epoch: int) -> _Drawn:
        """Return the draws of an epoch, on the CPU; they depend on seed, epoch and the labels only."""
        ...


class Shuffle:
    """Draws every example once per epoch, in random order. The row of an example is its position in the split."""

    epochs_per_pass = 1

    def __init__(self, labels: Tensor) -> None:
        self.length = len(labels)

    def draw(self, seed: int, epoch: int) -> _Drawn:
        """Return a permutation of the examples."""
        order = epoch_order(seed, epoch, self.length)
        return _Drawn(order, order)


class Balanced:
    """Draws every class equally often in each epoch: N / K times, rounded down, for N examples in K classes.

    The draws of a class run through all of its examples, in a new order each time, before one is repeated, also across
    epochs. So an epoch repeats the examples of a rare class and takes a part of those of a frequent one, and over many
    epochs the examples of a class are drawn equally often, to within one. Classes without examples are left out.
    """

    epochs_per_pass = 1

    def __init__(self, labels: Tensor) -> None:
        host = labels.cpu()
        parts = torch.split(host.argsort(stable=True), host.bincount().tolist())
        self._classes = [part for part in parts if len(part)]
        self._each = len(host) // len(self._classes)
        self.length = self._each * len(self._classes)

    def draw(self, seed: int, epoch: int) -> _Drawn:
        """Return the draws of all classes in one random order."""
        drawn = torch.cat([self._draw_class(seed, epoch, number) for number in range(len(self._classes))])
        return _Drawn(drawn[epoch_order(seed, epoch, self.length)], torch.arange(self.length))

    def _draw_class(self, seed: int, epoch: int, number: int) -> Tensor:
        """Return the draws of one class in an epoch: the next ones of an endless sequence of passes over the class."""
        members = self._classes[number]
        first, stop = epoch * self._each, (epoch + 1) * self._each
        passes = range(first // len(members), -(-stop // len(members)))
        # Only a pass that an epoch cuts needs an order of its own: the epoch is shuffled as a whole.
        cut = {passes[0], passes[-1]}
        found = [
            members[torch.randperm(len(members), generator=generator(seed, "balanced", number, each))]
            if each in cut
            else members
            for each in passes
        ]
        begin = first - passes[0] * len(members)
        return torch.cat(found)[begin : begin + self._each]


class Repeated:
    """Draws each example several times in a row, each time with other random numbers (Hoffer et al. 2020, 1901.09335).

    An epoch is about as long as one of the sampler that is repeated, so it draws a part of its examples; as many epochs
    as there are repeats draw all of them. Fewer than `times` examples at the end of a pass are left out.

    Args:
        sampler: Draws the examples.
        times: The draws of each example in a row, at most the length of the sampler.
    """

    def __init__(self, sampler: Sampler, times: int) -> None:
        self._sampler, self._times = sampler, times
        self._each = sampler.length // times
        self.length = self._each * times
        self.epochs_per_pass = sampler.epochs_per_pass * times

    def draw(self, seed: int, epoch: int) -> _Drawn:
        """Return the next part of a pass, with a row of its own for each draw."""
        number, part = divmod(epoch, self._times)
        examples = self._sampler.draw(seed, number).examples[part * self._each : (part + 1) * self._each]
        return _Drawn(examples.repeat_interleave(self._times), torch.arange(self.length))


SAMPLERS: Mapping[Sampling, Callable[[Tensor], Sampler]] = {"shuffle": Shuffle, "balanced": Balanced}
