"""Schedules that hold or fall: constant, step, multistep, exponential, cosine, linear, polynomial, inverse square root.

t counts the steps after the warm-up, n is how many there are; `final` is the factor that step n would have.
"""

from __future__ import annotations

import math
from bisect import bisect_right

from runner.components.scheduler.clock import Clock, dated, warmed
from runner.engine.contracts import Schedule
from runner.registry import register
from runner.schema import Duration, Positive, Unit


@register("scheduler")
def constant(total_steps: int, steps_per_epoch: int, batch: int, *, warmup: Duration) -> Schedule:
    """Return the factor 1 in every step after the warm-up."""
    return warmed(lambda t, n: 1.0, warmup, Clock(total_steps, steps_per_epoch, batch))


@register("scheduler")
def step(
    total_steps: int, steps_per_epoch: int, batch: int, *, every: Duration, gamma: Positive, warmup: Duration
) -> Schedule:
    """Return `gamma ** (s // every)`: a drop after each `every`, counted from the run's start."""
    clock = Clock(total_steps, steps_per_epoch, batch)
    period = clock.period(every)
    return dated(lambda s: gamma ** (s // period), warmup, clock)


@register("scheduler")
def cosine(total_steps: int, steps_per_epoch: int, batch: int, *, final: Unit, warmup: Duration) -> Schedule:
    """Return half a cosine from 1 to `final`: `final + (1 - final) * (1 + cos(pi * t / n)) / 2` (arXiv 1608.03983)."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * (1 + math.cos(math.pi * min(t, n) / n)) / 2

    return warmed(curve, warmup, Clock(total_steps, steps_per_epoch, batch))


@register("scheduler")
def inverse_sqrt(
    total_steps: int, steps_per_epoch: int, batch: int, *, timescale: Duration, warmup: Duration
) -> Schedule:
    """Return `1 / sqrt(1 + t / timescale)`: 1 at the start (`1 / sqrt(t)` alone is infinite there).

    With `timescale` equal to `warmup` (w steps) it is `sqrt(w / s)` after the warm-up: the form of arXiv 1706.03762,
    section 5.3.
    """
    clock = Clock(total_steps, steps_per_epoch, batch)
    scale = clock.period(timescale)
    return warmed(lambda t, n: 1 / math.sqrt(1 + t / scale), warmup, clock)


@register("scheduler")
def multistep(
    total_steps: int, steps_per_epoch: int, batch: int, *, milestones: list[Duration], gamma: Positive, warmup: Duration
) -> Schedule:
    """Return `gamma ** (milestones that have passed)`, counted from the run's start (He et al. 2015)."""
    clock = Clock(total_steps, steps_per_epoch, batch)
    dates = sorted(clock.steps(milestone) for milestone in milestones)
    return dated(lambda s: gamma ** bisect_right(dates, s), warmup, clock)


@register("scheduler")
def exponential(
    total_steps: int, steps_per_epoch: int, batch: int, *, every: Duration, gamma: Positive, warmup: Duration
) -> Schedule:
    """Return `gamma ** (t / every)`: the fall of `step`, spread evenly over its distance."""
    clock = Clock(total_steps, steps_per_epoch, batch)
    period = clock.period(every)
    return warmed(lambda t, n: gamma ** (t / period), warmup, clock)


@register("scheduler")
def polynomial(
    total_steps: int, steps_per_epoch: int, batch: int, *, power: Positive, final: Unit, warmup: Duration
) -> Schedule:
    """Return `final + (1 - final) * (1 - t / n) ** power`."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * math.pow(1 - min(t, n) / n, power)

    return warmed(curve, warmup, Clock(total_steps, steps_per_epoch, batch))


@register("scheduler")
def linear(total_steps: int, steps_per_epoch: int, batch: int, *, final: Unit, warmup: Duration) -> Schedule:
    """Return a straight line from 1 to `final`."""
    return warmed(lambda t, n: 1 + (final - 1) * min(t, n) / n, warmup, Clock(total_steps, steps_per_epoch, batch))
