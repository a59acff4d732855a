"""Schedules that are constant or decrease.

constant, step, multistep, exponential, cosine, linear, polynomial, inverse square root, WSD, plateau. A schedule is a
function from the number of steps done to the factor on each group's learning rate; only `plateau` has a state.

The package's docstring defines t, n and s.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from runner.components.scheduler.warmup import WarmUp
from runner.durations import dates_until
from runner.engine.clock import Clock
from runner.engine.contracts import Schedule
from runner.registry import register
from runner.relations import InRun
from runner.schema import Duration, NonNegative, NonNegativeInt, Positive, Unit

_Date = Annotated[Duration, InRun(before=True)]
_Scale = Annotated[Duration, InRun()]
_Decay = Annotated[Duration, InRun(end=True, after="warmup")]
# Progress in [0, 1] of a decay -> the share of the learning rate that is left
_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda p: 1 - p,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "sqrt": lambda p: 1 - math.sqrt(p),
}


@register("scheduler")
def constant(warm_up: WarmUp) -> Schedule:
    """Return the factor 1 in every step after the warm-up."""
    return warm_up.then(lambda t, n: 1.0)


@register("scheduler")
def step(clock: Clock, warm_up: WarmUp, *, every: _Date, gamma: Positive, final: Unit) -> Schedule:
    """Return `gamma ** k` after k drops: one at each step `round(k * every)`, counted from the start of the run.

    The factor never falls below `final`.
    """
    interval = clock.interval(every)
    return warm_up.times(lambda s: max(final, gamma ** dates_until(s, interval)))


@register("scheduler")
def cosine(warm_up: WarmUp, *, final: Unit) -> Schedule:
    """Return half a cosine from 1 to `final`: `final + (1 - final) * (1 + cos(pi * t / n)) / 2` (arXiv 1608.03983)."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * (1 + math.cos(math.pi * min(t, n) / n)) / 2

    return warm_up.then(curve)


@register("scheduler")
def inverse_sqrt(clock: Clock, warm_up: WarmUp, *, timescale: _Scale, final: Unit) -> Schedule:
    """Return `1 / sqrt(1 + t / timescale)`, which starts at 1 (`1 / sqrt(t)` would be infinite at t = 0).

    With `timescale` equal to `warmup`, w steps, it is `sqrt(w / s)` after the warm-up: the schedule of the transformer
    (arXiv 1706.03762, section 5.3). The factor never falls below `final`.
    """
    scale = max(1, clock.steps(timescale))
    return warm_up.then(lambda t, n: max(final, 1 / math.sqrt(1 + t / scale)))


@register("scheduler")
def multistep(clock: Clock, warm_up: WarmUp, *, milestones: list[_Date], gamma: Positive, final: Unit) -> Schedule:
    """Return `gamma ** (number of milestones passed)`, counted from the start of the run (arXiv 1512.03385).

    The factor never falls below `final`.
    """
    dates = sorted(clock.steps(milestone) for milestone in milestones)
    return warm_up.times(lambda s: max(final, gamma ** bisect_right(dates, s)))


@register("scheduler")
def exponential(clock: Clock, warm_up: WarmUp, *, every: _Scale, gamma: Positive, final: Unit) -> Schedule:
    """Return `gamma ** (t / every)`: the decay of `step` in equal factors per step, never below `final`."""
    interval = float(clock.interval(every))
    return warm_up.then(lambda t, n: max(final, gamma ** (t / interval)))


@register("scheduler")
def polynomial(warm_up: WarmUp, *, power: Positive, final: Unit) -> Schedule:
    """Return `final + (1 - final) * (1 - t / n) ** power`."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * math.pow(1 - min(t, n) / n, power)

    return warm_up.then(curve)


@register("scheduler")
def linear(warm_up: WarmUp, *, final: Unit) -> Schedule:
    """Return a straight line from 1 to `final`."""
    return warm_up.then(lambda t, n: 1 + (final - 1) * min(t, n) / n)


@register("scheduler")
def wsd(
    clock: Clock, warm_up: WarmUp, *, decay: _Decay, shape: Literal["linear", "cosine", "sqrt"], final: Unit
) -> Schedule:
    """Return 1 until the last part of the run, then a decay to `final`: warm-up, stable, decay.

    With p the share of the decay that is over, the factor is `final + (1 - final) * f(p)`, and f is `1 - p`
    (`linear`), `(1 + cos(pi * p)) / 2` (`cosine`) or `1 - sqrt(p)` (`sqrt`). Hu et al. 2024 (arXiv 2404.06395); Hagele
    et al. 2024 (arXiv 2405.18392) recommend `sqrt` over the last fifth. The steps before the decay do not depend on
    the length of the run, so that a longer one can start from their weights.
    """
    steps, left = max(1, clock.steps(decay)), _SHAPES[shape]

    def curve(t: int, n: int) -> float:
        over = t - (n - min(n, steps))
        return 1.0 if over <= 0 else final + (1 - final) * left(min(1.0, over / min(n, steps)))

    return warm_up.then(curve)


class _Plateau:
    """A schedule whose factor `observe` multiplies by gamma; its `state_dict` is in the checkpoint."""

    def __init__(
        self, ramp: Schedule, *, gamma: float, patience: int, threshold: float, cooldown: int, final: float
    ) -> None:
        self.ramp, self.gamma, self.final = ramp, gamma, final
        self.patience, self.threshold, self.cooldown = patience, threshold, cooldown
        self.factor, self.best, self.waited, self.cooling = 1.0, -math.inf, 0, 0

    def __call__(self, step: int) -> float:
        """Return the factor of a step: the warm-up's times the current factor."""
        return self.ramp(step) * self.factor

    def observe(self, score: float) -> None:
        """Compare the score of a validation with the best so far; larger is better, NaN is no improvement."""
        if score > self.best + self.threshold:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.cooling:
            self.cooling, self.waited = self.cooling - 1, 0
        if self.waited > self.patience:
            self.factor = max(self.final, self.factor * self.gamma)
            self.waited, self.cooling = 0, self.cooldown

    def state_dict(self) -> dict[str, Any]:
        """Return the factor, the best score and both counters."""
        # Checkpoints call the cooldown counter `resting`
        return {"factor": self.factor, "best": self.best, "waited": self.waited, "resting": self.cooling}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""
        self.factor, self.best, self.waited, self.cooling = (
            state[name] for name in ("factor", "best", "waited", "resting")
        )


@register("scheduler")
def plateau(
    warm_up: WarmUp,
    *,
    gamma: Unit,
    patience: NonNegativeInt,
    threshold: NonNegative,
    cooldown: NonNegativeInt,
    final: Unit,
) -> _Plateau:
    """Return a factor that is multiplied by `gamma` after more than `patience` validations without improvement.

    An improvement exceeds the best monitored score by more than `threshold`. The `cooldown` validations after a drop do
    not count. The factor never falls below `final`. This is the rule of torch.optim.lr_scheduler.ReduceLROnPlateau.
    """
    ramp = warm_up.then(lambda t, n: 1.0)
    return _Plateau(ramp, gamma=gamma, patience=patience, threshold=threshold, cooldown=cooldown, final=final)
