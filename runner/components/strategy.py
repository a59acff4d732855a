"""Ways to train one model in several processes, which torchrun or Slurm starts; one process ignores them."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.engine.together import Strategy
from runner.registry import register
from runner.roles import Role
from runner.schema import Positive


@register("strategy")
def ddp(
    *,
    batch_norm: Literal["sync", "local"],
    dropout: Literal["exact", "per_rank"],
    timeout: Annotated[Positive, Role.EXECUTION],
    start_timeout: Annotated[Positive, Role.EXECUTION],
) -> Strategy:
    """Return data parallel training: each process has the whole model, and its share of each batch.

    The batch of a step is `data.batch_size` times `accumulate` examples over all processes. With `sync` and `exact`,
    the numbers of a run depend on the number of processes by rounding only.

    Args:
        batch_norm: `sync`: BatchNorms have the statistics of the whole batch. `local`: those of the share of each
            process; their running statistics are averaged over the processes before validations and checkpoints.
        dropout: `exact`: each process draws the masks of the whole batch. `per_rank`: its own.
        timeout: Seconds to wait for another process in a step, > 0.
        start_timeout: Seconds to wait until the first step is done, at validations and at checkpoints, > 0.
    """
    # The seconds to wait are needed before a component is built: runner.door.together reads them
    return Strategy(sync_norms=batch_norm == "sync", exact_draws=dropout == "exact")
