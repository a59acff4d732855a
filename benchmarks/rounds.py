"""Interleaved rounds: machines drift, so A and B take turns and their ratio is taken round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable


def interleave(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of both in each round, after one round that is thrown away."""
    ours(), other()
    return [(ours(), other()) for _ in range(rounds)]


def report(title: str, pairs: list[tuple[float, float]], *, unit: str, scale: float) -> float:
    """Print medians and the median ratio with its spread; return that ratio."""
    ratios = sorted(a / b for a, b in pairs)
    median = statistics.median(ratios)
    ours, other = (statistics.median(column) * scale for column in zip(*pairs, strict=True))
    print(
        f"{title}: ours {ours:.1f} {unit}, by hand {other:.1f} {unit}, "
        f"ratio {median:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}, n={len(pairs)})"
    )
    return median
