"""Averages beside the training: a copy of the model that moves towards it after each step.

The share of the way that it moves is a function of the step alone, so a resumed run needs only the averaged weights.
A frozen weight stays as it is; its average converges to it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from runner.engine.contracts import Average, Clock
from runner.registry import register
from runner.schema import Duration, HalfOpenUnit, PositiveInt

Tensors = tuple[list[Tensor], list[Tensor]]


class Itself:
    """The model itself: no average."""

    def __init__(self, model: nn.Module) -> None:
        self.module = model

    def update(self, model: nn.Module, step: int) -> None:
        """Do nothing: `module` is the model that was trained."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the weights are all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: there is nothing to take back."""


class Copy(Itself):
    """A copy of the model without gradients, updated from the model.

    It is float32 where the model has less precision: rounding would lose the small steps of an average.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(copy.deepcopy(model).float().requires_grad_(False))
        self.own = tensors(self.module)
        self.source, self.theirs = model, tensors(model)
        self.finer = any(mine.dtype != other.dtype for mine, other in zip(self.own[0], self.theirs[0], strict=True))

    def read(self, model: nn.Module) -> Tensors:
        """Return the model's tensors in the order and the types of `own`."""
        # Walking over all modules costs more than the average of a small model
        if model is not self.source:
            self.source, self.theirs = model, tensors(model)
        floats, counts = self.theirs
        return ([tensor.float() for tensor in floats], counts) if self.finer else self.theirs


def tensors(model: nn.Module) -> Tensors:
    """Return the tensors of a model that can be averaged, and those that can only be copied (counts)."""
    every = [t.detach() for t in (*model.parameters(), *model.buffers())]
    return [t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()]


def put(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors, of which there may be none."""
    if targets:
        torch._foreach_copy_(targets, sources)


class Running(Copy):
    """A copy of the model that moves towards it after step t (1 for the first) by the share `weight(t)` of the way.

    Parameters and floating-point buffers (running statistics of norms) are averaged, other buffers copied. With share
    1 it is a copy of the model, with share 0 it stays.
    """

    def __init__(self, model: nn.Module, weight: Callable[[int], float]) -> None:
        super().__init__(model)
        self.weight = weight

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after optimizer step number `step`, without waiting for the device."""
        share = self.weight(step)
        if share == 0:
            return
        newest, counts = self.read(model)
        torch._foreach_lerp_(self.own[0], newest, share)
        put(self.own[1], counts)


@register("average")
def none(model: nn.Module) -> Average:
    """Return the model itself, without an average."""
    return Itself(model)


@register("average")
def ema(model: nn.Module, *, decay: HalfOpenUnit) -> Average:
    """Return the exponential moving average of the weights after each step, free of the weights before the first.

    After step t each iterate i has the weight `decay ** (t - i)`, over their sum: the bias correction of Adam, built in
    as the share `(1 - decay) / (1 - decay ** t)`. So it is a plain mean at first, and needs no warm-up of the decay.
    """
    return Running(model, lambda t: (1 - decay) / (1 - decay**t))


@register("average")
def swa(model: nn.Module, clock: Clock, *, start: Duration, every: Duration) -> Average:
    """Return the plain mean of the weights at `start` and each `every` after it (arXiv 1803.05407, algorithm 1).

    Before `start` it is the model itself. The running statistics of norms are averaged like weights, which stands in
    for the pass over the data that the paper makes.
    """
    first, period = clock.steps(start), clock.period(every)

    def weight(t: int) -> float:
        number, rest = divmod(t - first, period)
        return 1.0 if t <= first else 1 / (number + 1) if rest == 0 else 0.0

    return Running(model, weight)


class Blocks(Copy):
    """The mean of the last iterates at any time, from means over blocks of `size` steps in a ring of `count`.

    It spans the block that is being filled and the `count - 1` full ones before it. Parameters and floating-point
    buffers are averaged, other buffers copied.
    """

    def __init__(self, model: nn.Module, size: int, count: int) -> None:
        super().__init__(model)
        self.size = size
        self.ring = [[torch.zeros_like(t) for t in self.own[0]] for _ in range(count)]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after optimizer step number `step`, without waiting for the device."""
        newest, counts = self.read(model)
        block, place = divmod(step - 1, self.size)
        current = self.ring[block % len(self.ring)]
        torch._foreach_lerp_(current, newest, 1 / (place + 1))
        put(self.own[0], current)
        spanned = place + 1
        for back in range(1, min(block, len(self.ring) - 1) + 1):
            spanned += self.size
            torch._foreach_lerp_(self.own[0], self.ring[(block - back) % len(self.ring)], self.size / spanned)
        put(self.own[1], counts)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the means of the blocks."""
        return {f"{i}.{j}": t for i, block in enumerate(self.ring) for j, t in enumerate(block)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        for i, block in enumerate(self.ring):
            put(block, [state[f"{i}.{j}"] for j in range(len(block))])


@register("average")
def polyak(model: nn.Module, clock: Clock, *, last: Duration, blocks: PositiveInt) -> Average:
    """Return the mean of the last iterates (Polyak and Juditsky 1992).

    With one block it starts at step `total - last`, and is the model itself before: one copy of the weights, for a run
    that goes to its end. With more it spans `last` steps, or up to a block less, at any time, as early stopping
    needs: `blocks + 1` copies.
    """
    window = clock.period(last)
    if blocks == 1:
        return Running(model, lambda t: 1 / max(1, t - (clock.total_steps - window)))
    return Blocks(model, max(1, round(window / blocks)), blocks)
