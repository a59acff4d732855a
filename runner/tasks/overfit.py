"""task=overfit: a sound model fits a small sample; where none does, the end of the loss names the fault."""

from __future__ import annotations

from typing import Annotated

from runner.protocol.overfit import Overfit
from runner.registry import register
from runner.schema import NotEmpty, Positive, PositiveInt
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.run_protocol import run_protocol


@register("task")
def overfit(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    n_batches: PositiveInt,
    max_examples: PositiveInt,
    max_steps: PositiveInt,
    lr_ladder: Annotated[list[Positive], NotEmpty()],
    loss_frac: Positive,
    controls: bool,
) -> int:
    """Train on a small sample until all its examples are right, without regularization and augmentation.

    Tries the learning rates of a ladder until one fits; the controls (equal images, permuted labels) must not succeed.
    A sample that is not fitted exits with code 1 and the name of the fault. Leaves a report in a run folder.
    """
    step = Overfit(
        n_batches=n_batches,
        max_examples=max_examples,
        max_steps=max_steps,
        lr_ladder=tuple(lr_ladder),
        loss_frac=loss_frac,
        controls=controls,
    )
    return run_protocol(job, vary, launch, [step])
