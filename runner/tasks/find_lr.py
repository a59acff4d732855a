"""task=find_lr: learning rates that make the loss go down, from short trainings on the same batches."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.protocol.find_lr import FindLr
from runner.registry import register
from runner.schema import NonNegative, NotEmpty, Positive, PositiveInt, Range
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.run_protocol import run_protocol


@register("task")
def find_lr(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    method: Literal["sweep", "range", "both"],
    lrs: Annotated[list[Positive], NotEmpty()] | Literal["auto"],
    iters: Annotated[int, Range(20)],
    seeds: PositiveInt,
    weight_decay: NonNegative | Literal["auto"],
    within: Annotated[float, Range(0, 1, open_low=True, open_high=True)],
    stop: Annotated[float, Range(1)],
) -> int:
    """Train shortly with several learning rates, and choose the largest whose loss is near the least one.

    All learning rates get the same seeds, weights and batches, a constant rate and the config's augmentation. If none
    makes the loss go down, none is handed on, and the exit code is 1. Leaves a report with the override to copy, and a
    recipe.
    """
    step = FindLr(
        method=method,
        lrs=None if lrs == "auto" else tuple(lrs),
        iters=iters,
        seeds=seeds,
        weight_decay=weight_decay,
        within=within,
        stop=stop,
    )
    return run_protocol(job, vary, launch, [step])
