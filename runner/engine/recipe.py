"""What stays fixed during a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

from runner.engine.contracts import Loss, Predict, Probe
from runner.engine.forward import Forward, plainly

# A number of steps between two events that never happen, not even after the last step.
NEVER_DUE = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fixed part of a run. Steps are optimizer steps, counted from 1 as they are done."""

    seed: int
    total_steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int
    log_every: int
    accumulate: int
    loss: Loss
    mix: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # (images, labels, step) -> (images, labels)
    predict: Predict
    penalties: Sequence[Callable[[nn.Module], Tensor]]
    constraints: Sequence[Callable[[nn.Module], None]]
    probes: Sequence[Probe]
    clip: Callable[[nn.Module], Tensor | None]  # clips gradients in place, returns their norm before
    autocast: Callable[[], AbstractContextManager[None]]
    reseed: Callable[[int], None]  # seeds torch's global generators, which dropout draws from
    forward: Forward = plainly  # how training calls the model; evaluation calls it as it is
    compiled: bool = False  # whether torch.compile makes the forward

    def due(self, every: int, step: int) -> bool:
        """Return whether an event is due after `step`: after every so many steps and the last, unless `NEVER_DUE`."""
        return step % every == 0 or (step == self.total_steps and every != NEVER_DUE)
