"""Ramps: drop rates that grow during training. The rate is a tensor, so that a compiled step reads each new value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ramped(nn.Module):
    """Base of a module that drops something at random, with a rate that may grow to `p` during training.

    Args:
        p: The probability to drop, in [0, 1).
        ramped: True if a `Ramp` sets the share of `p` that counts in a step; otherwise it is all of `p`.
    """

    drops_at_random = True
    # No part of the weights: a model that predicts drops at the full rate
    reached: Tensor | None

    def __init__(self, p: float, *, ramped: bool = False) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("reached", torch.ones(()) if ramped else None, persistent=False)

    @property
    def rate(self) -> float | Tensor:
        """The probability to drop in this step, a number or a tensor ()."""
        return self.p if self.reached is None else self.p * self.reached


class Ramp:
    """Sets modules before each step: their rate grows linearly from 0 to its value in a number of steps, at least 1.

    It follows from the step alone, so a resumed run needs no state.
    """

    def __init__(self, steps: int, modules: Sequence[Ramped]) -> None:
        self._steps, self._modules = steps, modules
        self._share: float | None = None

    def __call__(self, step: int) -> None:
        """Set the rates of the next step; `step` is the number of steps done before."""
        share = min(1.0, step / self._steps)
        if share == self._share:
            return
        self._share = share
        for module in self._modules:
            if module.reached is not None:
                module.reached.fill_(share)


@contextmanager
def at_full_rate(model: nn.Module) -> Iterator[None]:
    """Let the modules of a model drop at their full rate within the context, whatever the step.

    Predictions during training are then those that the same weights give later.
    """
    followed = [(m, m.reached) for m in model.modules() if isinstance(m, Ramped) and m.reached is not None]
    for module, reached in followed:
        module.reached = torch.ones_like(reached)
    try:
        yield
    finally:
        for module, reached in followed:
            module.reached = reached
