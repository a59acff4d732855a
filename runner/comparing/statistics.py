"""Means over seeds, their differences, and what so few runs can show at all.

The unit of replication is a training run with its own seed. Intervals are Student's: the percentile bootstrap covers
too little below ten runs. Every function takes plain numbers, so that it can be held against closed forms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

ALPHA = 0.05
POWER = 0.8
MOST_FLIPS = 14  # pairs up to which all 2^n signs are tried


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % t-interval and two-sided p; nan where there are too few numbers, or no spread."""

    mean: float
    low: float
    high: float
    p: float


NOTHING = Interval(math.nan, math.nan, math.nan, math.nan)


def spread(numbers: Sequence[float]) -> float:
    """Return the standard deviation with n - 1, nan for fewer than two numbers."""
    return stdev(numbers) if len(numbers) > 1 else math.nan


def paired(differences: Sequence[float]) -> Interval:
    """Return the mean of differences pair by pair, with the interval of the one-sample t-test."""
    if not differences:
        return NOTHING
    sd = spread(differences)
    return student(fmean(differences), sd / math.sqrt(len(differences)), len(differences) - 1)


def welch(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the difference of two means (first minus second) with Welch's interval, no pairs and no equal spread."""
    if not first or not second:
        return NOTHING
    parts = [spread(numbers) ** 2 / len(numbers) for numbers in (first, second)]
    degrees = math.nan
    if all(map(math.isfinite, parts)) and sum(parts) > 0:
        below = sum(part**2 / (len(x) - 1) for part, x in zip(parts, (first, second), strict=True))
        degrees = sum(parts) ** 2 / below if below else math.nan
    return student(fmean(first) - fmean(second), math.sqrt(sum(parts)), degrees)


def student(mean: float, error: float, degrees: float) -> Interval:
    """Return the interval of a mean with a standard error; none where nothing was seen of the spread."""
    from scipy.stats import t

    if not error > 0 or not degrees > 0:
        return Interval(mean, math.nan, math.nan, math.nan)
    half = float(t.ppf(1 - ALPHA / 2, degrees)) * error
    return Interval(mean, mean - half, mean + half, 2 * float(t.sf(abs(mean) / error, degrees)))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that all true hypotheses together are rejected wrongly in 5 % (Holm 1979).

    A nan is a comparison that was not made: it stays and does not count.
    """
    adjusted, floor = [math.nan] * len(ps), 0.0
    made = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    for rank, (p, place) in enumerate(made):
        floor = max(floor, min(1.0, p * (len(made) - rank)))
        adjusted[place] = floor
    return adjusted


def sign_flip(differences: Sequence[float]) -> float:
    """Return the exact two-sided p of the paired permutation test; with n pairs it is never below 2 / 2^n."""
    count = len(differences)
    if not 1 <= count <= MOST_FLIPS:
        return math.nan
    seen = abs(math.fsum(differences))
    sums = (abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips(count))
    return float(sum(total >= seen * (1 - 1e-12) for total in sums) / 2**count)


def flips(count: int) -> itertools.product[tuple[int, ...]]:
    """Return all ways to give so many numbers a sign."""
    return itertools.product((1, -1), repeat=count)


def equivalent(differences: Sequence[float], margin: float) -> bool:
    """Tell whether two one-sided t-tests at 5 % put the mean difference inside +-margin (Schuirmann 1987)."""
    from scipy.stats import t

    error = spread(differences) / math.sqrt(len(differences)) if differences else math.nan
    if not error > 0:
        return False
    half = float(t.ppf(1 - ALPHA, len(differences) - 1)) * error
    return abs(fmean(differences)) + half < margin


def power(effect: float, count: int) -> float:
    """Return how often a paired t-test at 5 % sees a true difference of `effect` standard deviations with n pairs."""
    from scipy.stats import nct, t

    critical, shift = float(t.ppf(1 - ALPHA / 2, count - 1)), effect * math.sqrt(count)
    seen = float(nct.sf(critical, count - 1, shift) + nct.cdf(-critical, count - 1, shift))
    return 1.0 if math.isnan(seen) else seen  # scipy's series gives up far out, where nothing is missed


def detectable(sd: float, count: int) -> float:
    """Return the smallest true difference that n pairs, whose differences spread by `sd`, would show in 80 %."""
    from scipy.optimize import brentq

    if count < 2 or not sd > 0:
        return math.nan
    return sd * float(brentq(lambda effect: power(effect, count) - POWER, 0.0, 40.0, xtol=1e-9))


def pairs_needed(difference: float, sd: float, most: int = 1000) -> int | None:
    """Return how many pairs would show a true difference of this size in 80 %; None for more than `most`."""
    if not sd > 0 or not abs(difference) > 0:
        return None
    low, high = 2, most
    if detectable(sd, most) > abs(difference):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(sd, middle) <= abs(difference) else (middle + 1, high)
    return low


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Pearson's r of pairs, nan for fewer than three or without spread."""
    if len(first) < 3 or not spread(first) > 0 or not spread(second) > 0:
        return math.nan
    means = fmean(first), fmean(second)
    products = math.fsum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True))
    return products / ((len(first) - 1) * spread(first) * spread(second))


def lead_by_chance(count: int) -> float:
    """Return by how many standard errors the best of n equal configurations is expected to lead their mean."""
    from scipy.integrate import quad
    from scipy.stats import norm

    if count < 2:
        return 0.0
    return float(quad(lambda x: count * x * norm.pdf(x) * norm.cdf(x) ** (count - 1), -10, 10)[0])
