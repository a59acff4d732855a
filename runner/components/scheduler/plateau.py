"""The one schedule with a state: it falls when the score stops getting better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.components.scheduler.clock import Clock, warmed
from runner.engine.contracts import Schedule
from runner.registry import register
from runner.schema import Duration, NonNegative, NonNegativeInt, Unit


class Plateau:
    """A schedule whose factor `observe` lowers; `state_dict` is what a resumed run needs."""

    def __init__(
        self, ramp: Schedule, *, gamma: float, patience: int, threshold: float, cooldown: int, final: float
    ) -> None:
        self.ramp, self.gamma, self.final = ramp, gamma, final
        self.patience, self.threshold, self.cooldown = patience, threshold, cooldown
        self.factor, self.best, self.waited, self.resting = 1.0, -math.inf, 0, 0

    def __call__(self, step: int) -> float:
        """Return the factor of a step: the warm-up's times what the plateaus have left of it."""
        return self.ramp(step) * self.factor

    def observe(self, score: float) -> None:
        """Take in the score of a validation, larger being better; NaN is no improvement."""
        if score > self.best + self.threshold:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.resting:
            self.resting, self.waited = self.resting - 1, 0
        if self.waited > self.patience:
            self.factor = max(self.final, self.factor * self.gamma)
            self.waited, self.resting = 0, self.cooldown

    def state_dict(self) -> dict[str, Any]:
        """Return the factor and what the next observation depends on."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited, "resting": self.resting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.factor, self.best, self.waited, self.resting = (
            state[name] for name in ("factor", "best", "waited", "resting")
        )


@register("scheduler")
def plateau(
    total_steps: int,
    steps_per_epoch: int,
    batch: int,
    *,
    gamma: Unit,
    patience: NonNegativeInt,
    threshold: NonNegative,
    cooldown: NonNegativeInt,
    final: Unit,
    warmup: Duration,
) -> Plateau:
    """Return a factor that is multiplied by `gamma` after more than `patience` validations without a better score.

    Better is by more than `threshold`; `cooldown` validations after a drop do not count; it never falls below `final`.
    The rule of torch's ReduceLROnPlateau.
    """
    ramp = warmed(lambda t, n: 1.0, warmup, Clock(total_steps, steps_per_epoch, batch))
    return Plateau(ramp, gamma=gamma, patience=patience, threshold=threshold, cooldown=cooldown, final=final)
