"""Schedules as a run holds them: functions of the step, of which some look at scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from runner.engine.contracts import Schedule


class Observing(Protocol):
    """A schedule that may look at the scores of validations, and then has a state."""

    def __call__(self, step: int) -> float:
        """Return the factor on each group's learning rate after `step` optimizer steps."""
        ...

    def observe(self, score: float) -> None:
        """Take in the monitored score of a validation, larger being better."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        ...


class Pure:
    """A schedule that is a function of the step alone: it looks at no score and has no state."""

    def __init__(self, factor: Schedule) -> None:
        self.factor = factor

    def __call__(self, step: int) -> float:
        """Return the factor of a step."""
        return self.factor(step)

    def observe(self, score: float) -> None:
        """Look away."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing back."""
