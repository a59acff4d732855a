"""A target with what was found, and how that stands to its bound."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.rounds import Pairs, Spread, spread
from benchmarks.targets import Target

NOT_MEASURED, NOT_ASKED = "not measured", "not asked for"


@dataclass(frozen=True)
class Result:
    """A target with what was found: the numbers of each round, or why there are none."""

    target: Target
    found: Pairs | str

    @property
    def pairs(self) -> Pairs:
        """The numbers of each round."""
        return [] if isinstance(self.found, str) else self.found

    @property
    def values(self) -> Spread | None:
        """The spread of what the bound is for."""
        return spread([self.target.value(*pair) for pair in self.pairs]) if self.pairs else None

    @property
    def verdict(self) -> str:
        """How the median stands to the bound."""
        target, values = self.target, self.values
        if values is None:
            return NOT_MEASURED
        if target.bound is None:
            return "for information"
        if target.stretch is not None and target.within(values.median, target.stretch):
            return "stretch"
        return "pass" if target.within(values.median, target.bound) else "MISS"

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of both sides in the target's unit."""
        ours, other = (statistics.median(column) for column in zip(*self.pairs, strict=True))
        return ours * self.target.scale, other * self.target.scale

    def as_json(self) -> dict[str, Any]:
        """Return everything, for the file."""
        measured = {"reason": self.found} if isinstance(self.found, str) else {"pairs": self.found}
        values = asdict(self.values) if self.values else {}
        return {**asdict(self.target), "verdict": self.verdict, **values, **pooled(self), **measured}


def pooled(result: Result) -> dict[str, float]:
    """Return the value over all rounds together, which no rare cost can hide from."""
    if not result.pairs:
        return {}
    ours, other = (statistics.fmean(column) for column in zip(*result.pairs, strict=True))
    return {"pooled": result.target.value(ours, other)}
