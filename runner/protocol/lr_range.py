"""A range test: one training whose learning rate rises exponentially from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from runner.assemble import Experiment
from runner.engine.schedules import Pure
from runner.engine.short_run import short_run
from runner.errors import Diverged
from runner.protocol.lr_scores import smoothed, suggestions

_LOWEST, _HIGHEST = 1e-7, 10.0
_BETA = 0.98
# Steps between two looks at the loss
_CHUNK = 10


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """The learning rates and smoothed losses of a range test, and what they suggest."""

    rates: list[float]
    losses: list[float]
    suggested: dict[str, float]

    def record(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {"rates": self.rates, "losses": self.losses, "suggested": self.suggested}


def range_test(experiment: Experiment, steps: int, stop: float) -> RangeTest:
    """Train some steps while the learning rate rises, until the smoothed loss is `stop` times its least value."""
    learner, base = experiment.learner, experiment.learner.optimizer.param_groups[0]["initial_lr"]
    rates = [_LOWEST * (_HIGHEST / _LOWEST) ** (step / (steps - 1)) for step in range(steps)]
    learner.schedule = Pure(lambda step: rates[min(step, steps - 1)] / base)
    losses: list[float] = []
    while len(losses) < steps:
        try:
            curves = short_run(experiment.recipe, learner, experiment.batches, steps=min(_CHUNK, steps - len(losses)))
        except Diverged:
            break
        losses += curves["train/loss"].values.tolist()
        curve = smoothed(losses, _BETA)
        if not math.isfinite(curve[-1]) or curve[-1] > stop * curve.min():
            break
    curve = smoothed(losses, _BETA) if losses else smoothed([math.nan])
    kept = rates[: len(losses)]
    return RangeTest(rates=kept, losses=curve.tolist(), suggested=suggestions(kept, curve.tolist()) if losses else {})
