"""task=coarse: a coarse search over learning rate and weight decay, in trainings of a few epochs."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.protocol.coarse import Coarse
from runner.registry import register
from runner.schema import NonNegative, NotEmpty, Positive, PositiveInt, Range
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.run_protocol import run_protocol


@register("task")
def coarse(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    epochs: Annotated[float, Range(0, 5, open_low=True)],
    mode: Literal["grid", "qmc", "random"],
    lr_factors: Annotated[list[Positive], NotEmpty()],
    weight_decays: Annotated[list[NonNegative], NotEmpty()] | Literal["auto"],
    points: PositiveInt,
    seeds: PositiveInt,
    metric: Literal["val/loss", "val/accuracy"],
) -> int:
    """Train a few epochs at each point of a grid around the config's learning rate, and rank the points.

    A grid whose best point is on an edge is extended there, at most twice. If no training predicts validation examples
    better than the most frequent class, the exit code is 1. Leaves a table of all trainings, a report, and a recipe.
    """
    step = Coarse(
        epochs=epochs,
        mode=mode,
        lr_factors=tuple(lr_factors),
        weight_decays=None if weight_decays == "auto" else tuple(weight_decays),
        points=points,
        seeds=seeds,
        metric=metric,
    )
    return run_protocol(job, vary, launch, [step])
