"""Schedules that increase too: cyclic, triangular, cosine with restarts, one cycle.

The package's docstring defines t, n and s.
"""

from __future__ import annotations

import math
from typing import Annotated

from runner.components.scheduler.decay import with_warmup
from runner.engine.contracts import Clock, Schedule
from runner.registry import register
from runner.schema import Duration, Positive, PositiveInt, Range, Unit

_Share = Annotated[float, Range(0, 1, open_low=True)]


@register("scheduler")
def cyclic(clock: Clock, *, low: _Share, half: Duration, gamma: Positive, warmup: Duration) -> Schedule:
    """Return triangles from `low` up to 1 and back; each half takes `half`, and each height is `gamma` times the last.

    Smith 2017 (arXiv 1506.01186): gamma 1 is the paper's `triangular`, gamma 0.5 its `triangular2`. torch's CyclicLR.
    """
    h = clock.period(half)

    def curve(t: int, n: int) -> float:
        cycle, position = divmod(t, 2 * h)
        return low + (1 - low) * gamma**cycle * (1 - abs(position / h - 1))

    return with_warmup(curve, warmup, clock)


@register("scheduler")
def triangular(clock: Clock, *, start: _Share, peak: Duration, final: Unit, warmup: Duration) -> Schedule:
    """Return a straight line from `start` up to 1 at `peak` after the warm-up, and one down to `final`."""
    top = clock.steps(peak)

    def curve(t: int, n: int) -> float:
        if t < top:
            return start + (1 - start) * t / top
        return 1 + (final - 1) * min(1.0, (t - top) / max(1, n - top))

    return with_warmup(curve, warmup, clock)


@register("scheduler")
def cosine_restarts(clock: Clock, *, cycle: Duration, growth: PositiveInt, final: Unit, warmup: Duration) -> Schedule:
    """Return half cosines from 1 to `final`, each `growth` times as long as the last (SGDR, arXiv 1608.03983).

    The first takes `cycle`. A snapshot ensemble takes one model from the end of each (arXiv 1704.00109).
    """
    first = clock.period(cycle)

    def curve(t: int, n: int) -> float:
        length = first
        if growth == 1:
            t %= length
        while t >= length:
            t, length = t - length, length * growth
        return final + (1 - final) * (1 + math.cos(math.pi * t / length)) / 2

    return with_warmup(curve, warmup, clock)


@register("scheduler")
def onecycle(clock: Clock, *, start: _Share, peak: Duration, final: Unit, warmup: Duration) -> Schedule:
    """Return half cosines from `start` up to 1 and down to `final`, which is the factor of the last step.

    The rise takes `peak` after the warm-up. This is the learning rate of torch's OneCycleLR (Smith and Topin 2018,
    arXiv 1708.07120); the momentum is not cycled.
    """
    top = clock.steps(peak) - 1

    def curve(t: int, n: int) -> float:
        low, share = (start, 1 - t / top) if t < top else (final, (t - max(0, top)) / max(1, n - 1 - max(0, top)))
        return low + (1 - low) * (1 + math.cos(math.pi * min(1.0, share))) / 2

    return with_warmup(curve, warmup, clock)
