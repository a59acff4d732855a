"""Schedules that are constant or decrease, and the warm-up of all schedules.

constant, step, multistep, exponential, cosine, linear, polynomial, inverse square root, plateau. A schedule is a
function from the number of steps done to the factor on each group's learning rate; only `plateau` has a state.

The package's docstring defines t, n and s.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from runner.durations import dates_until
from runner.engine.clock import Clock
from runner.engine.contracts import Schedule
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import InRun
from runner.schema import Duration, NonNegative, NonNegativeInt, Positive, Unit

# A part of the run; none at 0
WarmUp = Annotated[Duration, InRun(zero=True, end=True)]
_Date = Annotated[Duration, InRun(before=True)]
_Scale = Annotated[Duration, InRun()]
# (t, n) -> factor
_Curve = Callable[[int, int], float]
# n -> the steps t at which a cycle has ended, in ascending order
_Ends = Callable[[int], Sequence[int]]


@dataclass(frozen=True)
class _Cyclic:
    """A schedule with cycles.

    Attributes:
        factor: The factor of each step.
        cycle_ends: The numbers of steps done after which a cycle has ended.
    """

    factor: Schedule
    cycle_ends: tuple[int, ...]

    def __call__(self, step: int) -> float:
        """Return the factor of a step."""
        return self.factor(step)


def in_cycles(curve: _Curve, ends: _Ends, warmup: str, clock: Clock) -> Schedule:
    """Return `_with_warmup` of a curve that says when its cycles end."""
    w = _warmup_steps(warmup, clock)
    length = max(1, clock.total_steps - w)
    return _Cyclic(_with_warmup(curve, warmup, clock), tuple(w + t for t in ends(length) if w + t <= clock.total_steps))


def _with_warmup(curve: _Curve, warmup: str, clock: Clock) -> Schedule:
    """Return a linear warm-up over w steps, followed by the curve over the remaining steps.

    For s < w the factor is `curve(0) * (s + 1) / w`, which reaches the curve's start at s = w - 1 (Goyal et al. 2017,
    arXiv 1706.02677, section 2.2). From s = w on it is `curve(s - w)`.
    """
    w = _warmup_steps(warmup, clock)
    length = max(1, clock.total_steps - w)

    def factor(step: int) -> float:
        if step < w:
            return curve(0, length) * (step + 1) / w
        return curve(step - w, length)

    return factor


def _times_warmup(curve: Callable[[int], float], warmup: str, clock: Clock) -> Schedule:
    """Return a curve of s multiplied by a linear warm-up over w steps: for s < w, `curve(s) * (s + 1) / w`.

    Its milestones count from the start of the run: a drop after 30 epochs comes after 30 epochs of the run.
    """
    w = _warmup_steps(warmup, clock)
    return lambda step: curve(step) * min(1.0, (step + 1) / max(1, w))


def _warmup_steps(warmup: str, clock: Clock) -> int:
    """Return a warm-up in steps; raise ConfigError if it is longer than the run."""
    steps = clock.steps(warmup)
    if steps > clock.total_steps:
        raise ConfigError(f"scheduler.warmup: {warmup} is {steps} steps, more than the run's {clock.total_steps}")
    return steps


@register("scheduler")
def constant(clock: Clock, *, warmup: WarmUp) -> Schedule:
    """Return the factor 1 in every step after the warm-up."""
    return _with_warmup(lambda t, n: 1.0, warmup, clock)


@register("scheduler")
def step(clock: Clock, *, every: _Date, gamma: Positive, warmup: WarmUp) -> Schedule:
    """Return `gamma ** k` after k drops: one at each step `round(k * every)`, counted from the start of the run."""
    interval = clock.interval(every)
    return _times_warmup(lambda s: gamma ** dates_until(s, interval), warmup, clock)


@register("scheduler")
def cosine(clock: Clock, *, final: Unit, warmup: WarmUp) -> Schedule:
    """Return half a cosine from 1 to `final`: `final + (1 - final) * (1 + cos(pi * t / n)) / 2` (arXiv 1608.03983)."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * (1 + math.cos(math.pi * min(t, n) / n)) / 2

    return _with_warmup(curve, warmup, clock)


@register("scheduler")
def inverse_sqrt(clock: Clock, *, timescale: _Scale, warmup: WarmUp) -> Schedule:
    """Return `1 / sqrt(1 + t / timescale)`, which starts at 1 (`1 / sqrt(t)` would be infinite at t = 0).

    With `timescale` equal to `warmup`, w steps, it is `sqrt(w / s)` after the warm-up: the schedule of the transformer
    (arXiv 1706.03762, section 5.3).
    """
    scale = max(1, clock.steps(timescale))
    return _with_warmup(lambda t, n: 1 / math.sqrt(1 + t / scale), warmup, clock)


@register("scheduler")
def multistep(clock: Clock, *, milestones: list[_Date], gamma: Positive, warmup: WarmUp) -> Schedule:
    """Return `gamma ** (number of milestones passed)`, counted from the start of the run (arXiv 1512.03385)."""
    dates = sorted(clock.steps(milestone) for milestone in milestones)
    return _times_warmup(lambda s: gamma ** bisect_right(dates, s), warmup, clock)


@register("scheduler")
def exponential(clock: Clock, *, every: _Scale, gamma: Positive, warmup: WarmUp) -> Schedule:
    """Return `gamma ** (t / every)`: the decay of `step` in equal factors per step."""
    interval = float(clock.interval(every))
    return _with_warmup(lambda t, n: gamma ** (t / interval), warmup, clock)


@register("scheduler")
def polynomial(clock: Clock, *, power: Positive, final: Unit, warmup: WarmUp) -> Schedule:
    """Return `final + (1 - final) * (1 - t / n) ** power`."""

    def curve(t: int, n: int) -> float:
        return final + (1 - final) * math.pow(1 - min(t, n) / n, power)

    return _with_warmup(curve, warmup, clock)


@register("scheduler")
def linear(clock: Clock, *, final: Unit, warmup: WarmUp) -> Schedule:
    """Return a straight line from 1 to `final`."""
    return _with_warmup(lambda t, n: 1 + (final - 1) * min(t, n) / n, warmup, clock)


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
    clock: Clock,
    *,
    gamma: Unit,
    patience: NonNegativeInt,
    threshold: NonNegative,
    cooldown: NonNegativeInt,
    final: Unit,
    warmup: WarmUp,
) -> _Plateau:
    """Return a factor that is multiplied by `gamma` after more than `patience` validations without improvement.

    An improvement exceeds the best monitored score by more than `threshold`. The `cooldown` validations after a drop do
    not count. The factor never falls below `final`. This is the rule of torch.optim.lr_scheduler.ReduceLROnPlateau.
    """
    ramp = _with_warmup(lambda t, n: 1.0, warmup, clock)
    return _Plateau(ramp, gamma=gamma, patience=patience, threshold=threshold, cooldown=cooldown, final=final)
