"""task=refine: a refining search over learning rate and weight decay, whose winner is confirmed by fresh seeds."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.protocol.refine import Refine
from runner.registry import register
from runner.schema import Positive, PositiveInt, Range
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.run_protocol import run_protocol


@register("task")
def refine(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    epochs: Positive | Literal["auto"],
    points: Annotated[int, Range(3)],
    rounds: PositiveInt,
    seeds: PositiveInt,
    confirm_seeds: Annotated[int, Range(2)],
    metric: Literal["val/loss", "val/accuracy"],
) -> int:
    """Search around the config's learning rate and weight decay in rounds, and confirm the winner with fresh seeds.

    The winner is compared with where the search began over seeds that chose neither, and the better one is handed on.
    The report and the recipe say how sure that is: the interval of winner minus incumbent.
    """
    step = Refine(epochs=epochs, points=points, rounds=rounds, seeds=seeds, confirm_seeds=confirm_seeds, metric=metric)
    return run_protocol(job, vary, launch, [step])
