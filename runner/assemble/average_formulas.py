"""Formulas of weight averages in the first steps, apart from the code that computes them: a weight for each step."""

from __future__ import annotations

from collections.abc import Callable

from runner.engine.invariants.known import Formula


def ema(decay: float, *, warmup: bool) -> Formula:
    """Return the exponential moving average: the last weights count most, all of them sum to 1."""

    def weights(step: int) -> dict[int, float]:
        if not warmup:
            return {i: decay ** (step - i) * (1 - decay) / (1 - decay**step) for i in range(1, step + 1)}
        found = {1: 1.0}
        for t in range(2, step + 1):
            kept = min(decay, (t - 1) / (t + 8))
            found = {i: kept * weight for i, weight in found.items()} | {t: 1 - kept}
        return found

    return weights


def means_at(start: int, every: float) -> Formula:
    """Return the plain mean of the weights at dates; before the first of them the weights themselves."""

    def weights(step: int) -> dict[int, float] | None:
        if every != round(every) and start + every <= step:
            return None
        dates = [t for t in range(max(1, start), step + 1) if (t - start) % every == 0]
        return {t: 1 / len(dates) for t in dates} if dates else {step: 1.0}

    return weights


def last_mean(total: int, window: int, blocks: int) -> Formula:
    """Return the plain mean of the last weights: from a fixed step on, or of the last blocks."""
    size = max(1, round(window / blocks))

    def weights(step: int) -> dict[int, float]:
        first = total - window + 1 if blocks == 1 else ((step - 1) // size - (blocks - 1)) * size + 1
        first = min(max(1, first), step)
        return dict.fromkeys(range(first, step + 1), 1 / (step - first + 1))

    return weights


def schedule_free(share: float, rate: Callable[[int], float]) -> Formula:
    """Return the average x of a schedule-free optimizer as a sum of the weights y that the model has had.

    `x <- (1 - c) * x + c * z` with `y = (1 - a) * z + a * x`, solved for x without z; c is r ** 2 over the sum of all
    r ** 2 so far.

    Args:
        share: a, the share of the average in y, in (0, 1).
        rate: The rate r of a step (1: the first) up to a common factor.
    """
    a = share

    def weights(step: int) -> dict[int, float]:
        found, squares = {0: 1.0}, 0.0
        for t in range(1, step + 1):
            squares += rate(t) ** 2
            c = rate(t) ** 2 / squares if rate(t) else 0.0
            whole = 1 - a + c * a
            found = {i: (1 - c) * (1 - a) / whole * weight for i, weight in found.items()} | {t: c / whole}
        return found

    return weights
