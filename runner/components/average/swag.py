"""SWAG: the mean and the covariance of the weights at dates, from which `predict=swag` samples models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from runner.components.average.running import Dates, Every, Running, Start, Statistics
from runner.engine.clock import Clock
from runner.engine.contracts import Average
from runner.engine.posterior import Posterior, attach
from runner.registry import register
from runner.schema import Range


class _Swag(Running):
    """A running mean of the weights, with a distribution of the parameters around it."""

    def __init__(self, model: nn.Module, dates: Dates, rank: int, recompute_after: float) -> None:
        super().__init__(model, dates.weight, recompute_after)
        self._dates, self._posterior = dates, Posterior(self.module, rank)
        attach(self.module, self._posterior)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Collect the weights after optimizer step number `step` if it is a date, without a host sync."""
        count = self._dates.count(step)
        if count == 0 and self._posterior.count:
            # The run was extended, and its dates begin later now
            self._posterior.clear()
        if count == 0 or self.weight(step) == 0:
            super().update(model, step)
            return
        before = [mean.clone() for mean in self._posterior.mean.values()]
        super().update(model, step)
        self._posterior.collect(before, [p.detach().float() for p in model.parameters()], count)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the variances and the last differences, which are in the weights file already."""
        return self._posterior.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the variances and the differences."""
        self._posterior.load_state_dict(state)


@register("average")
def swag(
    model: nn.Module,
    clock: Clock,
    *,
    start: Start,
    every: Every,
    rank: Annotated[int, Range(2)],
    statistics: Statistics,
) -> Average:
    """Return the mean of `swa`, with variances and the last `rank` differences of the weights from it.

    SWAG (Maddox et al. 2019, arXiv 1902.02476): a Gaussian distribution over the weights, from which `predict=swag`
    samples. Weights are collected at `start` and after each `every` from there. Evaluation reads the mean otherwise.
    It takes `rank + 2` copies of the parameters, on the model's device and in each weights file.
    """
    dates = Dates(clock.steps(start), clock.interval(every))
    return _Swag(model, dates, rank, dates.first if statistics == "recompute" else math.inf)
