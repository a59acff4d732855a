"""Polyak averaging: the plain mean of the last iterates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from runner.components.average.running import Copy, Running, put
from runner.engine.contracts import Average
from runner.registry import register
from runner.schema import Duration, PositiveInt, steps_of


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
def polyak(
    model: nn.Module,
    total_steps: int,
    steps_per_epoch: int,
    batch: int,
    *,
    last: Duration,
    blocks: PositiveInt,
) -> Average:
    """Return the mean of the last iterates (Polyak and Juditsky 1992).

    With one block it starts at step `total - last`, and is the model itself before: one copy of the weights, for a run
    that goes to its end. With more it spans `last` steps, or up to a block less, at any time, as early stopping
    needs: `blocks + 1` copies.
    """
    window = max(1, steps_of(last, total_steps=total_steps, steps_per_epoch=steps_per_epoch, batch=batch))
    if blocks == 1:
        return Running(model, lambda t: 1 / max(1, t - (total_steps - window)))
    return Blocks(model, max(1, round(window / blocks)), blocks)
