"""Drop rates that grow during training: the knob `ramp`, and a dropout that follows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import torch
from torch import Tensor

from runner.engine.clock import Clock
from runner.engine.ramps import Ramp, Ramped
from runner.printing import counted
from runner.relations import InRun
from runner.schema import Duration

# Null is no ramp
RampKnob = Annotated[Duration, InRun(end=True)] | None
_Module = TypeVar("_Module", bound=Ramped)


class RampedDropout(Ramped):
    """Inverted dropout of units, channels or examples, with a rate that follows the step.

    Args:
        p: The probability to drop at the end of the ramp, in [0, 1).
        apart: The number of leading dimensions along which masks are drawn; the values along the others are dropped
            together. 1 drops whole examples, 2 whole channels, None single values.
    """

    def __init__(self, p: float, *, apart: int | None = None) -> None:
        super().__init__(p, ramped=True)
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        """Return x (any shape) with zeros and scaled survivors in training, x in evaluation."""
        if not self.training:
            return x
        drawn = x.ndim if self.apart is None else self.apart
        kept = torch.rand(*x.shape[:drawn], *[1] * (x.ndim - drawn), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        """Return p for `repr`."""
        return f"p={self.p}"


class Ramping:
    """The ramp of one regularizer: the modules that it has made, and what sets them before each step.

    Args:
        ramp: The knob.
        clock: The length of the run; None for a model that predicts only, which has no ramp.
    """

    def __init__(self, ramp: str | None, clock: Clock | None) -> None:
        self.steps = max(1, clock.steps(ramp)) if clock and ramp else 0
        self._modules: list[Ramped] = []
        self.at_step: Callable[[int], None] | None = Ramp(self.steps, self._modules) if self.steps else None

    def follow(self, module: _Module) -> _Module:
        """Return a module whose rate will follow the ramp."""
        self._modules.append(module)
        return module

    def __str__(self) -> str:
        return f", growing from 0 over {counted(self.steps, 'step')}" if self.steps else ""
