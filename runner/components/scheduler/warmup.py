"""The warm-up of all schedules; the package's docstring defines t, n and s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from runner.engine.clock import Clock
from runner.engine.contracts import Schedule
from runner.errors import ConfigError
from runner.registry import shared_knobs
from runner.relations import InRun
from runner.schema import Duration, Range

Share = Annotated[float, Range(0, 1, open_low=True)]
_Length = Annotated[Duration, InRun(zero=True, end=True)]
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


@shared_knobs
class WarmUp:
    """A linear warm-up over w steps, from the knobs that all schedules share; a schedule asks for `warm_up`.

    The factor rises in equal steps to the start of the schedule, which it reaches in the last step of the warm-up,
    s = w - 1: from `warmup_start` in the first step, or from 1 / w, a step of the rise (Goyal et al. 2017, arXiv
    1706.02677, section 2.2).

    Args:
        clock: the length of the run.
        warmup: duration of the warm-up.
        warmup_start: share of the schedule's start in the first step, in (0, 1]; null is 1 / w.

    Raises:
        ConfigError: The warm-up is longer than the run, or has a start and no steps.
    """

    def __init__(self, clock: Clock, *, warmup: _Length, warmup_start: Share | None) -> None:
        self._steps, self._start, self._total = clock.steps(warmup), warmup_start, clock.total_steps
        if self._steps > clock.total_steps:
            raise ConfigError(
                f"scheduler.warmup: {warmup} is {self._steps} steps, more than the run's {clock.total_steps}"
            )
        if warmup_start is not None and self._steps == 0:
            raise ConfigError(
                f"scheduler.warmup_start: got {warmup_start:g}, but scheduler.warmup={warmup} is no step; set warmup"
            )
        self._rest = max(1, clock.total_steps - self._steps)

    def then(self, curve: _Curve) -> Schedule:
        """Return the warm-up to `curve(0)`, followed by the curve over the n remaining steps."""
        return lambda s: self._risen(curve(0, self._rest), s) if s < self._steps else self._after(curve, s)

    def in_cycles(self, curve: _Curve, ends: _Ends) -> Schedule:
        """Return `then` of a curve that says when its cycles end."""
        found = (self._steps + t for t in ends(self._rest))
        return _Cyclic(self.then(curve), tuple(end for end in found if end <= self._total))

    def times(self, curve: Callable[[int], float]) -> Schedule:
        """Return a curve of s, multiplied by the warm-up.

        Its milestones count from the start of the run: a drop after 30 epochs comes after 30 epochs of the run.
        """
        return lambda s: curve(s) * self._risen(1.0, s) if s < self._steps else curve(s)

    def held(self, curve: _Curve) -> Schedule:
        """Return `curve(0)` during the warm-up, followed by the curve over the n remaining steps."""
        return lambda s: curve(0, self._rest) if s < self._steps else self._after(curve, s)

    def _after(self, curve: _Curve, s: int) -> float:
        """Return the value of a curve after the warm-up."""
        return curve(s - self._steps, self._rest)

    def _risen(self, end: float, s: int) -> float:
        """Return the value in step s of the warm-up, whose last one has the value `end`."""
        if self._start is None:
            return end * (s + 1) / self._steps
        return end * (self._start + (1 - self._start) * s / max(1, self._steps - 1))
