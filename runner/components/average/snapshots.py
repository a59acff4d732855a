"""Snapshots: the weights at the end of each cycle of the schedule, for an ensemble of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from runner.components.average.running import NoAverage
from runner.engine.clock import Clock
from runner.engine.contracts import Average
from runner.engine.snapshots import Snapshots
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import InRun
from runner.schema import Duration, NotEmpty

_Date = Annotated[Duration, InRun(end=True)]


class _SnapshotAverage(NoAverage):
    """The model itself, and copies of its weights at dates."""

    def __init__(self, model: nn.Module, dates: Sequence[int]) -> None:
        super().__init__(model)
        self.snapshots = Snapshots(model, dates)

    def update(self, model: nn.Module, step: int) -> None:
        """Keep the weights if the step is a date."""
        self.snapshots.take(model, step)


@register("average")
def snapshots(
    model: nn.Module, clock: Clock, cycle_ends: Sequence[int], *, at: Annotated[list[_Date], NotEmpty()] | None
) -> Average:
    """Return the model itself, and keep its weights at the end of each cycle of the schedule, or at dates.

    A snapshot ensemble (Huang et al. 2017, arXiv 1704.00109). The run validates the model as without an average, and
    beside it the newest snapshot and the ensemble of all so far: probabilities are averaged for accuracy and
    `nll`, logits for the loss. `monitor` and the selected weights are of the single model.

    Args:
        model: The model in training.
        clock: The length of the run.
        cycle_ends: The steps after which a cycle of the schedule has ended.
        at: Dates, after which snapshots are taken; null: `cycle_ends`.

    Raises:
        ConfigError: No cycle of the schedule ends in the run, and there are no dates.
    """
    dates = cycle_ends if at is None else [max(1, clock.steps(date)) for date in at]
    if not dates:
        raise ConfigError(
            "average=snapshots: no cycle of the schedule ends in this run; choose scheduler=cosine_restarts, cyclic or "
            "triangular, or give dates, as in average.at=[50%,75%,100%]"
        )
    return _SnapshotAverage(model, dates)
