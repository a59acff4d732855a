"""Rounds in which two programs take turns, because the speed of a machine drifts; ratios are per round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

Pairs = list[tuple[float, float]]  # per round: (runner, other), in the same unit


@dataclass(frozen=True)
class Spread:
    """The median, quartiles and range of some numbers."""

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
    """Return the seconds of both in each round, after one warm-up round."""
    ours(), other()
    return [(ours(), other()) for _ in range(rounds)]


def report(title: str, pairs: Pairs, *, unit: str, scale: float) -> float:
    """Print the medians and the median ratio with its spread; return the ratio."""
    ratio = spread([a / b for a, b in pairs])
    ours, other = (statistics.median(column) * scale for column in zip(*pairs, strict=True))
    print(
        f"{title}: ours {ours:.1f} {unit}, the other {other:.1f} {unit}, "
        f"ratio {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}, n={ratio.n})"
    )
    return ratio.median


@dataclass(frozen=True)
class Size:
    """Length of a contest: warm-up steps, steps per turn, turns of each loop, CPU threads of torch.

    After `check` steps all loops must have the same loss. Rounding depends on the memory format of the feature maps,
    and with batch norm the difference grows with each step, so convolutional networks are compared early.
    """

    warm: int
    turn: int
    turns: int
    threads: int = 1
    check: int = 20

    @property
    def steps(self) -> int:
        """The steps of each loop. The last step marks the end of its last turn."""
        return self.warm + self.turn * self.turns + 1
