"""The length of a run, which turns durations into steps."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from runner.durations import exact_steps_of, steps_of


@dataclass(frozen=True)
class Clock:
    """The length of a run in optimizer steps. A component with a parameter `clock` gets it to convert durations.

    Attributes:
        total_steps, steps_per_epoch: The steps of the run and of an epoch.
        batch: The number of examples of a step.
    """

    total_steps: int
    steps_per_epoch: int
    batch: int

    def steps(self, duration: str) -> int:
        """Return a duration (`2epochs`, `500steps`, `10%`) in steps, rounded to the nearest integer, at least 0."""
        return steps_of(duration, **vars(self))

    def interval(self, duration: str) -> Fraction:
        """Return the exact time between two repetitions in steps, at least 1; `schema.date` gives their steps."""
        return max(Fraction(1), exact_steps_of(duration, **vars(self)))
