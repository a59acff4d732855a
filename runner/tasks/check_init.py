"""task=check_init: the loss of the untrained model, and checks of its inputs, gradients, optimizer and splits."""

from __future__ import annotations

from typing import Annotated

from runner.protocol.check_init import CheckInit
from runner.registry import register
from runner.schema import NonNegative, PositiveInt, Range
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.run_protocol import run_protocol


@register("task")
def check_init(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    examples: Annotated[int, Range(2)],
    seeds: PositiveInt,
    expected: float | None,
    pass_at: NonNegative,
    warn_at: NonNegative,
) -> int:
    """Check the untrained model: its loss against what the loss and the head predict, and what a training needs.

    Inputs, gradients of each parameter, independent examples, the optimizer's parameters, BatchNorm's examples, copies
    across splits. Nothing is trained; a failure exits with code 1. Leaves a report in a run folder.
    """
    step = CheckInit(examples=examples, seeds=seeds, expected=expected, pass_at=pass_at, warn_at=warn_at)
    return run_protocol(job, vary, launch, [step])
