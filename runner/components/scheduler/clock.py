"""Durations in steps, and the warm-up that all schedules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.engine.contracts import Schedule
from runner.errors import ConfigError
from runner.schema import steps_of

Curve = Callable[[int, int], float]  # (steps after the warm-up, steps that the curve has) -> factor


@dataclass(frozen=True)
class Clock:
    """The run in optimizer steps, and the steps of its durations."""

    total_steps: int
    steps_per_epoch: int
    batch: int

    def steps(self, duration: str) -> int:
        """Return a duration in steps, rounded."""
        return steps_of(duration, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch, batch=self.batch)

    def period(self, duration: str) -> int:
        """Return a duration in steps, at least one: what recurs cannot recur within a step."""
        return max(1, self.steps(duration))

    def warmup(self, duration: str) -> int:
        """Return a warm-up in steps; one longer than the run is an error."""
        steps = self.steps(duration)
        if steps > self.total_steps:
            raise ConfigError(f"scheduler.warmup: {duration} is {steps} steps, more than the run's {self.total_steps}")
        return steps


def warmed(curve: Curve, warmup: str, clock: Clock) -> Schedule:
    """Return a linear warm-up over w steps, then the curve over the remaining ones.

    In step s < w the factor is `curve(0) * (s + 1) / w`: 1/w of the curve's start in the first step, all of it in step
    w - 1 (Goyal et al. 2017, arXiv 1706.02677, section 2.2). From step w on it is `curve(s - w)`.
    """
    w = clock.warmup(warmup)
    length = max(1, clock.total_steps - w)

    def factor(step: int) -> float:
        if step < w:
            return curve(0, length) * (step + 1) / w
        return curve(step - w, length)

    return factor


def dated(curve: Callable[[int], float], warmup: str, clock: Clock) -> Schedule:
    """Return a curve with dates of its own, counted from the run's start, under a linear warm-up over w steps.

    In step s < w the factor is `curve(s) * (s + 1) / w`: a drop after 30 epochs comes after 30 epochs of the run.
    """
    w = clock.warmup(warmup)
    return lambda step: curve(step) * min(1.0, (step + 1) / max(1, w))
