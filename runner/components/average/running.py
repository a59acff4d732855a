"""Averages that do not affect training: a copy of the model moves towards the model after each step.

How far it moves is a function of the step alone, so a resumed run needs only the averaged weights. A frozen weight
does not change, and its average converges to it.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from runner.durations import dates_until, is_date
from runner.engine.clock import Clock
from runner.engine.contracts import Average
from runner.registry import register
from runner.relations import InRun
from runner.schema import Duration, HalfOpenUnit, PositiveInt

_Tensors = tuple[list[Tensor], list[Tensor]]
Statistics = Literal["recompute", "average"]
Start = Annotated[Duration, InRun(zero=True, rounds=True, end=True)]
Every = Annotated[Duration, InRun(end=True, after="start")]
_Last = Annotated[Duration, InRun(end=True)]
_Blocks = Annotated[PositiveInt, InRun(within="last")]


class NoAverage:
    """The model itself, without an average."""

    def __init__(self, model: nn.Module) -> None:
        self.module = model

    def update(self, model: nn.Module, step: int) -> None:
        """Do nothing: `module` is the model that was trained."""

    def needs_statistics(self, step: int) -> bool:
        """Return False: the statistics of norms fit the weights."""
        return False

    def state_dict(self) -> dict[str, Tensor]:
        """Return no tensors: `module` has all weights."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: `state_dict` is empty."""


class ModelCopy(NoAverage):
    """A copy of the model without gradients, updated from the model.

    The copy is float32 where the model has less precision: rounding would lose the small steps of an average.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(copy.deepcopy(model).float().requires_grad_(False))
        self.floats, self.counts = _tensors(self.module)
        self._source, self._source_tensors = model, _tensors(model)
        self._cast = any(c.dtype != t.dtype for c, t in zip(self.floats, self._source_tensors[0], strict=True))

    def read(self, model: nn.Module) -> _Tensors:
        """Return the model's tensors in the order of `floats` and `counts`, and in their types."""
        # Walking over all modules costs more than the average of a small model
        if model is not self._source:
            self._source, self._source_tensors = model, _tensors(model)
        floats, counts = self._source_tensors
        return ([tensor.float() for tensor in floats], counts) if self._cast else self._source_tensors


def _tensors(model: nn.Module) -> _Tensors:
    """Return the floating-point tensors of a model, which are averaged, and the others (counts), which are copied."""
    every = [t.detach() for t in (*model.parameters(), *model.buffers())]
    return [t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()]


def copy_tensors(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy the sources into the targets; the lists may be empty, which torch's own call rejects."""
    if targets:
        torch._foreach_copy_(targets, sources)


class Running(ModelCopy):
    """A running average: after step t (1 for the first), `average <- average + weight(t) * (model - average)`.

    Parameters and floating-point buffers (running statistics of norms) are averaged, other buffers copied. Weight 1
    makes it a copy of the model, weight 0 leaves it unchanged.
    """

    def __init__(self, model: nn.Module, weight: Callable[[int], float], recompute_after: float = math.inf) -> None:
        super().__init__(model)
        self.weight, self._recompute_after = weight, recompute_after

    def needs_statistics(self, step: int) -> bool:
        """Return True if the average after `step` steps needs statistics of norms that are computed from data."""
        return step > self._recompute_after

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the model after optimizer step number `step` to the average, without a host sync."""
        weight = self.weight(step)
        if weight == 0:
            return
        newest, counts = self.read(model)
        torch._foreach_lerp_(self.floats, newest, weight)
        copy_tensors(self.counts, counts)


@register("average")
def none(model: nn.Module) -> Average:
    """Return the model itself, without an average."""
    return NoAverage(model)


@register("average")
def ema(model: nn.Module, *, decay: HalfOpenUnit, warmup: bool) -> Average:
    """Return the exponential moving average of the weights after each step; the initial weights are not in it.

    After step t, `average <- average + (1 - d) * (w - average)`. With `warmup`, `d = min(decay, (t - 1) / (t + 8))`:
    the average begins at the weights after step 1 and spans about the last ninth of the steps until `decay` is reached
    (0.99 at step 892). This is TensorFlow's `(1 + n) / (10 + n)`, n = t - 2.

    Without, `1 - d = (1 - decay) / (1 - decay ** t)`: the weights after step i count `decay ** (t - i)`, normalized to
    sum 1. This is Adam's bias correction (arXiv 1412.6980, section 3): the average begins as a plain mean over all
    steps, and the first validations lag behind the model.
    """
    if warmup:
        return Running(model, lambda t: 1 - min(decay, (t - 1) / (t + 8)))
    return Running(model, lambda t: (1 - decay) / (1 - decay**t))


@dataclass(frozen=True)
class Dates:
    """The steps after which weights are collected for a plain mean: `start`, and each `every` from there."""

    start: int
    every: Fraction

    def count(self, step: int) -> int:
        """Return how many weights are collected up to a step; those before the first step are none."""
        return dates_until(step - self.start, self.every) + (self.start > 0) if step >= max(1, self.start) else 0

    def weight(self, step: int) -> float:
        """Return the weight of the model after a step in the mean: 1 until the first is collected, 0 between dates."""
        count = self.count(step)
        if count and count == self.count(step - 1):
            return 0.0
        return 1 / max(1, count)

    @property
    def first(self) -> int:
        """Return the first of the steps."""
        return self.start or next(step for step in itertools.count(1) if is_date(step, self.every))


@register("average")
def swa(model: nn.Module, clock: Clock, *, start: Start, every: Every, statistics: Statistics) -> Average:
    """Return the plain mean of the weights at `start` and after each `every` from there (SWA, arXiv 1803.05407).

    Before the first of these it is the model itself. With a `start` of 0 the untrained weights are not in the mean. The
    statistics of BatchNorms are recomputed by a pass over the training data before each validation (algorithm 1 of the
    paper), or averaged like weights.
    """
    dates = Dates(clock.steps(start), clock.interval(every))
    return Running(model, dates.weight, dates.first if statistics == "recompute" else math.inf)


class _BlockMeans(ModelCopy):
    """The mean of the last weights at any step, from the means of `count` blocks of `size` steps, kept in a ring.

    The mean spans the block that is being filled and the `count - 1` full blocks before it. Parameters and
    floating-point buffers are averaged, other buffers copied.
    """

    def __init__(self, model: nn.Module, size: int, count: int, *, recompute: bool) -> None:
        super().__init__(model)
        self.size, self._recompute = size, recompute
        self.ring = [[torch.zeros_like(t) for t in self.floats] for _ in range(count)]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the model after optimizer step number `step` to the average, without a host sync."""
        newest, counts = self.read(model)
        block, position = divmod(step - 1, self.size)
        current = self.ring[block % len(self.ring)]
        torch._foreach_lerp_(current, newest, 1 / (position + 1))
        copy_tensors(self.floats, current)
        spanned = position + 1
        for back in range(1, min(block, len(self.ring) - 1) + 1):
            spanned += self.size
            torch._foreach_lerp_(self.floats, self.ring[(block - back) % len(self.ring)], self.size / spanned)
        copy_tensors(self.counts, counts)

    def needs_statistics(self, step: int) -> bool:
        """Return True if the mean after `step` steps needs statistics of norms that are computed from data."""
        return self._recompute and step > 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the means of the blocks."""
        return {f"{i}.{j}": t for i, block in enumerate(self.ring) for j, t in enumerate(block)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the means of the blocks."""
        for i, block in enumerate(self.ring):
            copy_tensors(block, [state[f"{i}.{j}"] for j in range(len(block))])


@register("average")
def polyak(model: nn.Module, clock: Clock, *, last: _Last, blocks: _Blocks, statistics: Statistics) -> Average:
    """Return the plain mean of the weights after the last steps (Polyak and Juditsky 1992).

    With one block the mean starts at step `total_steps - last`, and is the model itself before: this suits a run of
    known length and takes one copy of the weights. With more blocks the mean spans `last` steps, or up to one block
    less, at any step, as early stopping needs: `blocks + 1` copies. Statistics of BatchNorms are as in `swa`.
    """
    window = max(1, clock.steps(last))
    recompute = statistics == "recompute"
    if blocks == 1:
        start = clock.total_steps - window
        return Running(model, lambda t: 1 / max(1, t - start), start + 1 if recompute else math.inf)
    return _BlockMeans(model, max(1, round(window / blocks)), blocks, recompute=recompute)
