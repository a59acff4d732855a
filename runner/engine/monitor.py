"""The score that selection, early stopping, searches and tables go by, and which way it gets better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

_SMALLER_IS_BETTER = ("loss",)  # metrics; of all others larger is better
_Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Monitor:
    """A score by its tag, `<split>/<metric>` as in `val/accuracy`."""

    tag: str

    @property
    def split(self) -> str:
        """The part of the data that it is measured on: `val`, `test`, ..."""
        return self.tag.partition("/")[0]

    @property
    def metric(self) -> str:
        """The metric: `accuracy`, `loss`."""
        return self.tag.partition("/")[2]

    @property
    def larger_is_better(self) -> bool:
        """True if a larger value is better."""
        return self.metric not in _SMALLER_IS_BETTER

    @property
    def direction(self) -> _Direction:
        """The word that Optuna uses for it."""
        return "maximize" if self.larger_is_better else "minimize"

    @property
    def sign(self) -> float:
        """1 if a larger value is better, else -1."""
        return 1.0 if self.larger_is_better else -1.0

    def rank(self, value: float) -> float:
        """Return the value such that larger is better, NaN as the worst."""
        return -math.inf if math.isnan(value) else self.sign * value

    def better(self, value: float, other: float) -> bool:
        """Return True if a value is better than another; NaN never is."""
        return self.rank(value) > self.rank(other)
