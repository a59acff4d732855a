"""Averages that are part of the optimization: Lookahead, and the average of the schedule-free optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from runner.components.average.running import ModelCopy, copy_tensors
from runner.engine.contracts import Average
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import InRun
from runner.schema import PositiveInt, Unit


class _Lookahead(ModelCopy):
    """Slow weights: every k steps they move towards the model, and the model is set to them."""

    def __init__(self, model: nn.Module, every: int, alpha: float) -> None:
        super().__init__(model)
        self.every, self.alpha = every, alpha
        self.slow = [p.detach() for p in self.module.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Every k steps, move the slow weights and copy them into the trainable ones of the model; copy its buffers."""
        if step % self.every:
            return
        parameters = list(model.parameters())
        torch._foreach_lerp_(self.slow, [p.detach().float() for p in parameters], self.alpha)
        trainable = [(p.detach(), slow) for p, slow in zip(parameters, self.slow, strict=True) if p.requires_grad]
        copy_tensors([fast for fast, _ in trainable], [slow for _, slow in trainable])
        copy_tensors(list(self.module.buffers()), list(model.buffers()))


class _ScheduleFreeAverage(ModelCopy):
    """The averaged weights of a schedule-free optimizer, which evaluation reads; buffers are copied from the model."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, recompute: bool) -> None:
        super().__init__(model)
        self.optimizer, self._recompute = optimizer, recompute

    def needs_statistics(self, step: int) -> bool:
        """Return True if the average needs statistics of norms that are computed from data."""
        return self._recompute

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Copy the optimizer's averages, and the model's weights where the optimizer has no average."""
        averaged = self.optimizer.averaged()  # type: ignore[attr-defined]
        copy_tensors(
            [p.detach() for p in self.module.parameters()], [averaged.get(p, p.detach()) for p in model.parameters()]
        )
        copy_tensors(list(self.module.buffers()), list(model.buffers()))


@register("average")
def lookahead(model: nn.Module, *, every: Annotated[PositiveInt, InRun(end=True)], alpha: Unit) -> Average:
    """Return the slow weights of Lookahead (arXiv 1907.08610, algorithm 1), which evaluation reads.

    Lookahead changes the training: after each `every` steps, `slow <- slow + alpha * (w - slow); w <- slow`. The
    optimizer's state stays. The model must be initialized already.
    """
    return _Lookahead(model, every, alpha)


@register("average")
def schedulefree(model: nn.Module, optimizer: Optimizer, *, statistics: Literal["recompute", "model"]) -> Average:
    """Return the averaged weights x that a schedule-free optimizer keeps (arXiv 2405.15682, algorithm 1).

    The statistics of BatchNorms are recomputed by a pass over the training data before each validation, or are the
    model's, which are computed at its own weights, y.

    Raises:
        ConfigError: The optimizer is another one.
    """
    if not hasattr(optimizer, "averaged"):
        raise ConfigError("average=schedulefree: needs optim=schedulefree or schedulefree_sgd, whose average it reads")
    return _ScheduleFreeAverage(model, optimizer, recompute=statistics == "recompute")
