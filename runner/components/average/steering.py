"""Averages that belong to the path of the optimizer: Lookahead, and the average of schedule-free steps."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from runner.components.average.running import Copy, put
from runner.engine.contracts import Average
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import PositiveInt, Unit


class Lookahead(Copy):
    """Slow weights: every k steps they move towards the model, and the model goes on from them."""

    def __init__(self, model: nn.Module, every: int, alpha: float) -> None:
        super().__init__(model)
        self.every, self.alpha = every, alpha
        self.slow = [p.detach() for p in self.module.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Every k steps move the slow weights and put them into the model, frozen ones excepted; copy its buffers."""
        if step % self.every:
            return
        parameters = list(model.parameters())
        torch._foreach_lerp_(self.slow, [p.detach().float() for p in parameters], self.alpha)
        trained = [(p.detach(), slow) for p, slow in zip(parameters, self.slow, strict=True) if p.requires_grad]
        put([fast for fast, _ in trained], [slow for _, slow in trained])
        put(list(self.module.buffers()), list(model.buffers()))


class Evaluated(Copy):
    """The averaged weights of a schedule-free optimizer, which are the ones to evaluate; buffers are the model's."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(model)
        self.optimizer = optimizer

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Copy the optimizer's averages, and the model's weights where it has none."""
        averaged = self.optimizer.averaged()  # type: ignore[attr-defined]
        put([p.detach() for p in self.module.parameters()], [averaged.get(p, p.detach()) for p in model.parameters()])
        put(list(self.module.buffers()), list(model.buffers()))


@register("average")
def lookahead(model: nn.Module, *, every: PositiveInt, alpha: Unit) -> Average:
    """Return the slow weights of Lookahead (arXiv 1907.08610, algorithm 1), which evaluation reads.

    It steers the training: after each `every` steps the slow weights go the share `alpha` towards the model, and the
    model is set to them; the optimizer's state stays as it is. The model must have its first weights already.
    """
    return Lookahead(model, every, alpha)


@register("average")
def schedulefree(model: nn.Module, optimizer: Optimizer) -> Average:
    """Return the averaged weights that `optim=schedulefree` keeps (arXiv 2405.15682).

    The running statistics of norms are the model's, taken at its own weights. Raises ConfigError for other optimizers.
    """
    if not hasattr(optimizer, "averaged"):
        raise ConfigError("average=schedulefree: needs optim=schedulefree, whose average it reads")
    return Evaluated(model, optimizer)
