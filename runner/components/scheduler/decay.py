"""Schedules that hold or fall, and the warm-up that all schedules share.

constant, step, multistep, exponential, cosine, linear, polynomial, inverse square root, plateau. A schedule is the
factor on each group's learning rate, a function of the steps done before; `plateau` alone has a state.

t counts the steps after the warm-up, n is how many there are. `final`, in [0, 1], is the factor that step n would have.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from runner.engine.contracts import Clock, Schedule
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Duration, NonNegative, NonNegativeInt, Positive, Unit

Curve = Callable[[int, int], float]  # (steps after the warm-up, steps that the curve has) -> factor


def with_warmup(curve: Curve, warmup: str, clock: Clock) -> Schedule:
    """Return a linear warm-up over w steps, then the curve over the remaining ones.

    In step s < w the factor is `curve(0) * (s + 1) / w`: 1/w of the curve's start in the first step, all of it in step
    w - 1 (Goyal et al. 2017, arXiv 1706.02677, section 2.2). From step w on it is `curve(s - w)`.
    """
    w = _warmup_steps(warmup, clock)
    length = max(1, clock.total_steps - w)

    def factor(step: int) -> float:
        if step < w:
            return curve(0, length) * (step + 1) / w
        return curve(step - w, length)

    return factor


def _under_warmup(curve: Callable[[int], float], warmup: str, clock: Clock) -> Schedule:
    """Return a curve whose dates count from the start of the run, times a linear warm-up over w steps.

    In step s < w the factor is `curve(s) * (s + 1) / w`: a drop after 30 epochs comes after 30 epochs of the run.
    """
    w = _warmup_steps(warmup, clock)
    return lambda step: curve(step) * min(1.0, (step + 1) / max(1, w))


def _warmup_steps(warmup: str, clock: Clock) -> int:
    """Return a warm-up in steps; one longer than the run is an error."""
    steps = clock.steps(warmup)
    if steps > clock.total_steps:
        raise ConfigError(f"scheduler.warmup: {warmup} is {steps} steps, more than the run's {clock.total_steps}")
    return steps


@register("scheduler")
def constant(clock: Clock, *, warmup: Duration) -> Schedule:
    """Return the factor 1 in every step after the warm-up."""
    return with_warmup(lambda t, n: 1.0, warmup, clock)


@register("scheduler")
def step(clock: Clock, *, every: Duration, gamma: Positive, warmup: Duration) -> Schedule:
    """Return `gamma ** (s // every)`: a drop after each `every`, counted from the run's start."""
    period = clock.period(every)
    return _under_warmup(lambda s: gamma ** (s // period), warmup, clock)


@register("scheduler")
def cosine(clock: Clock, *, final: Unit, warmup: Duration) -> Schedule:
    """Return half a cosine from 1 to `final`: `final + (1 - final) * (1 + cos(pi * t / n)) / 2` (arXiv 1608.03983)."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * (1 + math.cos(math.pi * min(t, n) / n)) / 2

    return with_warmup(curve, warmup, clock)


@register("scheduler")
def inverse_sqrt(clock: Clock, *, timescale: Duration, warmup: Duration) -> Schedule:
    """Return `1 / sqrt(1 + t / timescale)`: 1 at the start (`1 / sqrt(t)` alone is infinite there).

    With `timescale` equal to `warmup` (w steps) it is `sqrt(w / s)` after the warm-up: the form of arXiv 1706.03762,
    section 5.3.
    """
    scale = clock.period(timescale)
    return with_warmup(lambda t, n: 1 / math.sqrt(1 + t / scale), warmup, clock)


@register("scheduler")
def multistep(clock: Clock, *, milestones: list[Duration], gamma: Positive, warmup: Duration) -> Schedule:
    """Return `gamma ** (milestones that have passed)`, counted from the run's start (He et al. 2015)."""
    dates = sorted(clock.steps(milestone) for milestone in milestones)
    return _under_warmup(lambda s: gamma ** bisect_right(dates, s), warmup, clock)


@register("scheduler")
def exponential(clock: Clock, *, every: Duration, gamma: Positive, warmup: Duration) -> Schedule:
    """Return `gamma ** (t / every)`: the fall of `step`, spread evenly over its distance."""
    period = clock.period(every)
    return with_warmup(lambda t, n: gamma ** (t / period), warmup, clock)


@register("scheduler")
def polynomial(clock: Clock, *, power: Positive, final: Unit, warmup: Duration) -> Schedule:
    """Return `final + (1 - final) * (1 - t / n) ** power`."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * math.pow(1 - min(t, n) / n, power)

    return with_warmup(curve, warmup, clock)


@register("scheduler")
def linear(clock: Clock, *, final: Unit, warmup: Duration) -> Schedule:
    """Return a straight line from 1 to `final`."""
    return with_warmup(lambda t, n: 1 + (final - 1) * min(t, n) / n, warmup, clock)


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
    clock: Clock,
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
    ramp = with_warmup(lambda t, n: 1.0, warmup, clock)
    return Plateau(ramp, gamma=gamma, patience=patience, threshold=threshold, cooldown=cooldown, final=final)
