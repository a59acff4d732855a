"""Scores of learning rates after short trainings, the choice among them, and suggestions from a range test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Last losses whose median is the score
TAIL = 20
# Share of the starting loss below which a rise is noise
_FLOOR = 0.1
# Smoothing of a curve, corrected for its start
_SMOOTHING = 0.9
# Learning rates that differ by less, as a factor, are the same
_SAME = 1.05
_Array = NDArray[np.float64]


def smoothed(losses: Sequence[float], beta: float = _SMOOTHING) -> _Array:
    """Return the exponential average of a curve (n,), corrected for its start."""
    found, average = [], 0.0
    for step, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        found.append(average / (1 - beta**step))
    return np.array(found)


def score_of(losses: Sequence[float], steps: int, stop: float) -> float:
    """Return the median of the last losses of a curve; infinite if it ended early, is not finite, or explodes.

    It explodes where the smoothed loss exceeds `stop` times its least value so far, or a tenth of the first loss.
    """
    if len(losses) < steps or not all(map(math.isfinite, losses)):
        return math.inf
    curve = smoothed(losses)
    least = np.maximum(np.minimum.accumulate(curve), _FLOOR * abs(losses[0]))
    if (curve > stop * least).any():
        return math.inf
    # Of a very short training at most its last third
    return statistics.median(losses[-min(TAIL, max(1, steps // 3)) :])


def noise_of(losses: Sequence[float]) -> float:
    """Return the standard deviation of the noise of a curve, from the median of the differences of its end."""
    differences = np.diff(np.array(losses[-2 * TAIL :]))
    if not len(differences):
        return 0.0
    deviation = float(np.median(np.abs(differences - np.median(differences))))
    return 1.4826 * deviation / math.sqrt(2)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The learning rate that is handed on, and what was found on the way.

    Attributes:
        lr: The choice; None if no learning rate makes the loss go down.
        best: The learning rate of the least loss, None if none is finite.
        drop: How far the loss falls at best.
        needed: How far it must fall.
        stable: The largest learning rate below which none diverges.
        edge: -1 or 1 if the choice, or the best, is the lowest or highest that was tried; 0 otherwise.
    """

    lr: float | None
    best: float | None
    drop: float
    needed: float
    stable: float | None
    edge: int


def choose(scores: Mapping[float, float], start: float, noise: float, chance: float, within: float) -> Choice:
    """Return the largest learning rate whose loss is near the least one, and that is not next to one that diverges.

    Args:
        scores: The loss after a short training by learning rate, infinite if it diverged.
        start: The loss before training.
        noise: The standard deviation of the loss of a step.
        chance: The loss of a model that knows nothing.
        within: What counts as near, as a share of the largest fall.
    """
    rates = sorted(scores)
    needed = max(3 * noise / math.sqrt(TAIL), 0.02 * abs(chance))
    finite = [lr for lr in rates if math.isfinite(scores[lr])]
    stable = None
    for lr in rates:
        if not math.isfinite(scores[lr]):
            break
        stable = lr
    if not finite:
        return Choice(lr=None, best=None, drop=-math.inf, needed=needed, stable=None, edge=-1)
    best = min(finite, key=lambda lr: scores[lr])
    drop = start - scores[best]
    edge = -1 if best == rates[0] else 1 if best == rates[-1] else 0
    if drop < needed:
        return Choice(lr=None, best=best, drop=drop, needed=needed, stable=stable, edge=edge)
    near = [lr for lr in finite if scores[lr] <= scores[best] + within * drop]
    chosen = _away_from_divergence(near[-1], rates, scores)
    edge = 1 if chosen == rates[-1] else edge
    return Choice(lr=chosen, best=best, drop=drop, needed=needed, stable=stable, edge=edge)


def _away_from_divergence(lr: float, rates: Sequence[float], scores: Mapping[float, float]) -> float:
    """Return a learning rate, or the next lower finite one if the next higher one diverges."""
    place = rates.index(lr)
    above = rates[place + 1 : place + 2]
    below = [each for each in rates[:place] if math.isfinite(scores[each])]
    return below[-1] if above and below and not math.isfinite(scores[above[0]]) else lr


def decades(center: float) -> list[float]:
    """Return the learning rates to begin with: two decades below a center, the center, and one above."""
    return [_rounded(center * 10.0**power) for power in (-2, -1, 0, 1)]


def between(best: float, tried: Sequence[float]) -> list[float]:
    """Return the half decades on both sides of the best learning rate that were not tried."""
    return [
        each for each in (_rounded(best / math.sqrt(10)), _rounded(best * math.sqrt(10))) if not _is_in(each, tried)
    ]


def beyond(edge: int, tried: Sequence[float]) -> list[float]:
    """Return the next two half decades below the lowest (`edge` -1) or above the highest (1) that was tried."""
    last = min(tried) if edge < 0 else max(tried)
    return [_rounded(last * 10.0 ** (edge * power)) for power in (0.5, 1.0)]


def _rounded(lr: float) -> float:
    """Return a learning rate with three digits, as it is printed."""
    return float(f"{lr:.3g}")


def _is_in(lr: float, rates: Sequence[float]) -> bool:
    """Return True if a learning rate is one of some, but for rounding."""
    return any(max(lr, each) / min(lr, each) < _SAME for each in rates)


def suggestions(rates: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    """Return what a range test suggests: `valley`, `steep` and `minimum`, as fastai computes them.

    Args:
        rates: The learning rate of each step, rising.
        losses: The smoothed loss after each step; the first tenth and the last five are left out.
    """
    first = len(rates) // 10
    lrs, found = np.array(rates[first:-5]), np.array(losses[first:-5])
    finite = np.isfinite(found)
    if not finite.all():
        lrs, found = lrs[: int(finite.argmin())], found[: int(finite.argmin())]
    if len(found) < 2:
        return {}
    slopes = np.gradient(found, np.log(lrs))
    return {
        "valley": float(lrs[_valley(found)]),
        "steep": float(lrs[int(slopes.argmin())]),
        "minimum": float(lrs[int(found.argmin())]) / 10,
    }


def _valley(losses: _Array) -> int:
    """Return the place at two thirds of the longest decreasing subsequence, which is taken as one stretch."""
    longest = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        lower = longest[:i][losses[:i] > losses[i]]
        longest[i] = max(1, 1 + lower.max()) if len(lower) else 1
    end = int(longest.argmax())
    length = int(longest[end])
    sections = length / 3
    return min(len(losses) - 1, max(0, end - length) + int(sections) + int(sections / 2))
