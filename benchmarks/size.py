"""How much of a contest is run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much is done: warm-up steps, steps of a turn, turns of each loop, torch's threads on the CPU.

    After `check` steps all loops must have the same loss; rounding, which depends on the layout of the feature maps,
    grows from step to step where there are batch norms, so that convolutional nets are compared early.
    """

    warm: int
    turn: int
    turns: int
    threads: int = 1
    check: int = 20

    @property
    def steps(self) -> int:
        """The steps of each loop; the last shows that its last turn is over."""
        return self.warm + self.turn * self.turns + 1
