"""Schedules that increase too: cyclic, triangular, cosine with restarts, one cycle.

The package's docstring defines t, n and s. Each says when its cycles end; triangular and onecycle are one cycle.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction
from functools import cache
from typing import Annotated

from runner.components.scheduler.warmup import Share, WarmUp
from runner.durations import date, dates_until, exact_steps_of
from runner.engine.clock import Clock
from runner.engine.contracts import Schedule
from runner.engine.schedules import WithMomentum
from runner.registry import register
from runner.relations import InRun
from runner.schema import BOUNDS, Duration, HalfOpenUnit, Positive, PositiveInt, Unit

_Momentum = Annotated[list[HalfOpenUnit], BOUNDS]
_Part = Annotated[Duration, InRun(end=True)]
_Peak = Annotated[Duration, InRun(zero=True, rounds=True, end=True, after="warmup")]


@register("scheduler")
def cyclic(clock: Clock, warm_up: WarmUp, *, low: Share, half: _Part, gamma: Positive) -> Schedule:
    """Return triangles from `low` up to 1 and back; each half takes `half`, and each height is `gamma` times the last.

    Smith 2017 (arXiv 1506.01186): gamma 1 is the paper's `triangular`, gamma 0.5 its `triangular2`. torch's CyclicLR.
    The turning points are at t = `round(k * half)`.
    """
    interval = clock.interval(half)

    def curve(t: int, n: int) -> float:
        halves = dates_until(t, interval)
        begin, end = date(halves, interval), date(halves + 1, interval)
        share = (t - begin) / (end - begin)
        return low + (1 - low) * gamma ** (halves // 2) * (1 - share if halves % 2 else share)

    def ends(n: int) -> list[int]:
        return [date(2 * number, interval) for number in range(1, dates_until(n, interval) // 2 + 1)]

    return warm_up.in_cycles(curve, ends)


@register("scheduler")
def triangular(clock: Clock, warm_up: WarmUp, *, start: Share, peak: _Peak, final: Unit) -> Schedule:
    """Return a straight line from `start` up to 1 at `peak` after the warm-up, and one down to `final`."""
    top = clock.steps(peak)

    def curve(t: int, n: int) -> float:
        if t < top:
            return start + (1 - start) * t / top
        return 1 + (final - 1) * min(1.0, (t - top) / max(1, n - top))

    return warm_up.in_cycles(curve, lambda n: [n])


@register("scheduler")
def cosine_restarts(clock: Clock, warm_up: WarmUp, *, cycle: _Part, growth: PositiveInt, final: Unit) -> Schedule:
    """Return half cosines from 1 to `final`, each `growth` times as long as the last (SGDR, arXiv 1608.03983).

    Whole cycles fill the n steps after the warm-up, so that the run ends at the smallest factor. There are m of them,
    the number that needs the least stretching for a first cycle of length `cycle`. With `S_k = 1 + growth + ... +
    growth ** (k - 1)`, cycle k starts at t = `floor(n * S_k / S_m)`; no cycle is longer than the last. Where cycles do
    not grow, each has two steps or more. torch's CosineAnnealingWarmRestarts where `n = cycle * S_m`. A snapshot
    ensemble takes one model from the end of each cycle (arXiv 1704.00109).
    """
    starts = cache(lambda n: _restarts(n, clock.interval(cycle), growth))

    def curve(t: int, n: int) -> float:
        number = bisect_right(starts(n), t, hi=len(starts(n)) - 1)
        begin, end = starts(n)[number - 1], starts(n)[number]
        return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, (t - begin) / (end - begin)))) / 2

    return warm_up.in_cycles(curve, lambda n: starts(n)[1:])


def _restarts(n: int, first: Fraction, growth: int) -> list[int]:
    """Return the first step of each cycle, and n at the end; `first` is the length of the first cycle to aim at."""
    sums = [0, 1]
    # One more cycle as long as n is above the geometric mean of both total lengths
    while n**2 > first**2 * sums[-1] * (sums[-1] * growth + 1):
        sums.append(sums[-1] * growth + 1)
    if growth == 1:
        # A cycle of one step would stay at the full rate
        sums = sums[: max(1, n // 2) + 1]
    return [n * each // sums[-1] for each in sums]


@register("scheduler")
def onecycle(
    clock: Clock, warm_up: WarmUp, *, start: Share, peak: _Peak, final: Unit, momentum: _Momentum | None
) -> Schedule:
    """Return half cosines from `start` up to 1 and down to `final`, which is the factor of the last step.

    The rise takes `peak` after the warm-up: the factor is 1 at `t = peak - 1`, which may lie between two steps. This is
    torch's OneCycleLR (Smith and Topin 2018, arXiv 1708.07120). With `momentum: [low, high]` the momentum, or the first
    of `betas`, goes along half cosines from `high` down to `low` at the peak and back; it is `high` during the warm-up
    and replaces the optimizer's own. null does not change it.
    """
    top = float(exact_steps_of(peak, **vars(clock))) - 1

    def place(t: int, n: int) -> tuple[float, float]:
        """Return the factor that the half cosine of a step is farthest down at, and how far down it is, in [0, 1]."""
        if t < top:
            return start, 1 - t / top
        # The last step has the factor `final`, unless it is the peak
        return final, (t - top) / (n - 1 - top) if t < n - 1 else float(t > top)

    def curve(t: int, n: int) -> float:
        low, share = place(t, n)
        return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2

    factor = warm_up.in_cycles(curve, lambda n: [n])
    if momentum is None:
        return factor
    low, high = momentum
    opposite = warm_up.held(lambda t, n: high - (high - low) * (1 + math.cos(math.pi * place(t, n)[1])) / 2)
    return WithMomentum(factor, opposite)
