"""The error of an invariant that does not hold."""

from __future__ import annotations

from typing import Any

from runner.errors import InvariantViolated

# Where the fault may lie: the kinds of components, the most likely first
_Kinds = tuple[str, ...]


class Violation(InvariantViolated):
    """An invariant that does not hold, and what to look at.

    Attributes:
        invariant: The name of the invariant.
        kinds: The kinds of components that may break it; a plugin among them is at fault.
        problem: What was found, in words.
    """

    def __init__(self, invariant: str, step: int, problem: str, advice: str, kinds: _Kinds = ()) -> None:
        self.invariant, self.kinds, self.problem = invariant, kinds, f"{problem} in step {step}"
        self._made_of = (invariant, step, problem, advice, kinds)
        super().__init__(
            f"invariant '{invariant}' is violated in step {step}: {problem}; look at {advice} "
            "(invariants=never trains without this check)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again in another process."""
        return type(self), self._made_of
