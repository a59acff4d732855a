"""Rounds: machines drift, so A and B take turns and their ratio is taken round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

Pairs = list[tuple[float, float]]  # of each round: ours, the other's, in one unit


@dataclass(frozen=True)
class Spread:
    """The median of some numbers and how far they lie apart."""

    n: int
    median: float
    low: float
    quartile1: float
    quartile3: float
    high: float


def spread(numbers: list[float]) -> Spread:
    """Return median, quartiles and range."""
    first, median, third = statistics.quantiles(numbers, n=4, method="inclusive") if numbers[1:] else numbers * 3
    return Spread(len(numbers), median, min(numbers), first, third, max(numbers))


def interleave(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> Pairs:
    """Return the seconds of both in each round, after one round that is thrown away."""
    ours(), other()
    return [(ours(), other()) for _ in range(rounds)]


def report(title: str, pairs: Pairs, *, unit: str, scale: float) -> float:
    """Print medians and the median ratio with its spread; return that ratio."""
    found = spread([a / b for a, b in pairs])
    ours, other = (statistics.median(column) * scale for column in zip(*pairs, strict=True))
    print(
        f"{title}: ours {ours:.1f} {unit}, the other {other:.1f} {unit}, "
        f"ratio {found.median:.3f} ({found.low:.3f} to {found.high:.3f}, n={found.n})"
    )
    return found.median
