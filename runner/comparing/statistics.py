"""Intervals, tests and power for means over seeds and their differences.

The unit of replication is a training run with its own seed. Intervals are Student's t: the percentile bootstrap has too
little coverage below ten runs. Every function takes plain numbers, so that tests can compare it with closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

ALPHA = 0.05
_POWER = 0.8
# Most pairs of the exact test, which tries all 2^n signs
_MAX_FLIPS = 14


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % t-interval and two-sided p; nan for too few or equal numbers."""

    mean: float
    low: float
    high: float
    p: float


NO_INTERVAL = Interval(math.nan, math.nan, math.nan, math.nan)


def sample_sd(numbers: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1), nan for fewer than two numbers."""
    return stdev(numbers) if len(numbers) > 1 else math.nan


def paired_interval(differences: Sequence[float]) -> Interval:
    """Return the mean of paired differences with the interval of the one-sample t-test."""
    if not differences:
        return NO_INTERVAL
    sd = sample_sd(differences)
    return _student(fmean(differences), sd / math.sqrt(len(differences)), len(differences) - 1)


@dataclass(frozen=True)
class Moments:
    """Mean, sd (n - 1) and n of one side of Welch's interval; nan where there are too few numbers."""

    mean: float
    sd: float
    count: int


def moments(numbers: Sequence[float]) -> Moments:
    """Return the moments of some numbers."""
    return Moments(fmean(numbers) if numbers else math.nan, sample_sd(numbers), len(numbers))


def welch_interval(first: Moments, second: Moments) -> Interval:
    """Return the difference of two means (first minus second) with Welch's interval: unpaired, unequal variances."""
    if not first.count or not second.count:
        return NO_INTERVAL
    parts = [side.sd**2 / side.count for side in (first, second)]
    degrees = math.nan
    if all(map(math.isfinite, parts)) and sum(parts) > 0:
        below = sum(part**2 / (side.count - 1) for part, side in zip(parts, (first, second), strict=True))
        degrees = sum(parts) ** 2 / below if below else math.nan
    return _student(first.mean - second.mean, math.sqrt(sum(parts)), degrees)


def _student(mean: float, error: float, degrees: float) -> Interval:
    """Return the t-interval of a mean; its ends are nan without a positive standard error."""
    from scipy.stats import t

    if not error > 0 or not degrees > 0:
        return Interval(mean, math.nan, math.nan, math.nan)
    half = float(t.ppf(1 - ALPHA / 2, degrees)) * error
    return Interval(mean, mean - half, mean + half, 2 * float(t.sf(abs(mean) / error, degrees)))


def holm_adjusted(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for several comparisons (Holm 1979, family-wise error rate).

    A nan is a comparison that was not made: it stays nan and does not count.
    """
    adjusted, floor = [math.nan] * len(ps), 0.0
    made = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    for rank, (p, place) in enumerate(made):
        floor = max(floor, min(1.0, p * (len(made) - rank)))
        adjusted[place] = floor
    return adjusted


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the exact two-sided p of the paired permutation test, at least 2 / 2^n; nan above 14 pairs."""
    count = len(differences)
    if not 1 <= count <= _MAX_FLIPS:
        return math.nan
    import numpy as np

    seen = abs(math.fsum(differences))
    # The first sign stays +: the opposite signs give the same sum
    signs = np.array([[1.0]])
    for _ in range(count - 1):
        signs = np.block([[signs, np.ones((len(signs), 1))], [signs, -np.ones((len(signs), 1))]])
    sums = np.abs(signs @ np.array(differences))
    slack = 1e-9 * math.fsum(map(abs, differences))
    least = int((sums > seen + slack).sum())
    # The sums of a product are rounded, so those near the one seen are added exactly
    near = signs[np.abs(sums - seen) <= slack]
    least += sum(abs(math.fsum(line * differences)) >= seen * (1 - 1e-12) for line in near)
    return float(2 * least / 2**count)


def is_equivalent(differences: Sequence[float], margin: float) -> bool:
    """Return True if two one-sided t-tests at 5 % place the mean difference within +-margin (Schuirmann 1987)."""
    from scipy.stats import t

    error = sample_sd(differences) / math.sqrt(len(differences)) if differences else math.nan
    if not error > 0:
        return False
    half = float(t.ppf(1 - ALPHA, len(differences) - 1)) * error
    return abs(fmean(differences)) + half < margin


def power(effect: float, count: int) -> float:
    """Return the power of a paired t-test at 5 %.

    Args:
        effect: The true difference in standard deviations of the differences.
        count: The number of pairs.
    """
    from scipy.stats import nct, t

    critical, shift = float(t.ppf(1 - ALPHA / 2, count - 1)), effect * math.sqrt(count)
    seen = float(nct.sf(critical, count - 1, shift) + nct.cdf(-critical, count - 1, shift))
    # scipy's series does not converge for large effects, where the power is 1
    return 1.0 if math.isnan(seen) else seen


def detectable_difference(sd: float, count: int) -> float:
    """Return the true difference that n pairs detect with 80 % power; `sd` is that of the differences."""
    return sd * _detectable_effect(count) if count >= 2 and sd > 0 else math.nan


@cache
def _detectable_effect(count: int) -> float:
    """Return the effect that n pairs detect with 80 % power, in standard deviations of the differences."""
    from scipy.optimize import brentq

    return float(brentq(lambda effect: power(effect, count) - _POWER, 0.0, 40.0, xtol=1e-9))


def pairs_needed(difference: float, sd: float, most: int = 1000) -> int | None:
    """Return the pairs needed to detect a true difference with 80 % power, None if more than `most`."""
    if not sd > 0 or not abs(difference) > 0:
        return None
    low, high = 2, most
    if detectable_difference(sd, most) > abs(difference):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable_difference(sd, middle) <= abs(difference) else (middle + 1, high)
    return low


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Pearson's r, nan for fewer than three pairs or constant numbers."""
    if len(first) < 3 or not sample_sd(first) > 0 or not sample_sd(second) > 0:
        return math.nan
    means = fmean(first), fmean(second)
    products = math.fsum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True))
    return products / ((len(first) - 1) * sample_sd(first) * sample_sd(second))


def expected_lead_of_best(count: int) -> float:
    """Return the expected lead of the best of n equal configurations over their mean, in standard errors."""
    from scipy.integrate import quad
    from scipy.stats import norm

    if count < 2:
        return 0.0
    return float(quad(lambda x: count * x * norm.pdf(x) * norm.cdf(x) ** (count - 1), -10, 10)[0])
