"""Statistics of curves for the symptoms: noise, trend, flatness, periodicity. Plain arrays in, plain numbers out.

Trends are tested on means of blocks and never on a moving average, whose values depend on each other.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Blocks of a trend test
BLOCKS = 20
# Steps of a block at least: 200 steps for 20 blocks, below which the test alarms on correlated noise
BLOCK_STEPS = 10
# One-sided z of a trend at 1 %
TREND_Z = 2.33
# Standard deviation of normal numbers over their median absolute deviation
_MAD_TO_SD = 1.4826
# z of a two-sided interval of 90 %
_Z90 = 1.6448536269514722


@dataclass(frozen=True)
class _Slope:
    """A slope per step of the index, with the ends of its 90 % interval."""

    value: float
    low: float
    high: float


def noise_sd(values: Values) -> float:
    """Return the standard deviation of the noise around a slow curve, 0 for fewer than three values.

    It is that of the differences of neighbors over sqrt(2), from their median absolute deviation: a trend and single
    outliers change little.
    """
    if len(values) < 3:
        return 0.0
    differences = np.diff(values)
    return float(_MAD_TO_SD * np.median(np.abs(differences - np.median(differences))) / math.sqrt(2))


def block_means(values: Values, blocks: int = BLOCKS, least: int = BLOCK_STEPS) -> Values | None:
    """Return the means of equal blocks (blocks,), None if a block would have fewer than `least` values.

    The values that are left over are the first ones.
    """
    length = len(values) // blocks
    if length < least:
        return None
    means: Values = values[len(values) - length * blocks :].reshape(blocks, length).mean(axis=1)
    return means


def mann_kendall(values: Values) -> float:
    """Return z of the Mann-Kendall trend test, corrected for ties and continuity; negative for a falling curve."""
    n = len(values)
    if n < 3:
        return 0.0
    score = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    variance = _kendall_variance(values)
    return 0.0 if variance <= 0 else (score - math.copysign(1.0, score)) / math.sqrt(variance) if score else 0.0


def _kendall_variance(values: Values) -> float:
    """Return the variance of Kendall's score under no trend."""
    n = len(values)
    ties = np.unique(values, return_counts=True)[1].astype(float)
    return float(n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18


def theil_sen(values: Values) -> _Slope:
    """Return the median slope over all pairs per index, with Sen's 90 % interval (Sen 1968)."""
    n = len(values)
    if n < 2:
        return _Slope(0.0, -math.inf, math.inf)
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((values[second] - values[first]) / (second - first))
    half = _Z90 * math.sqrt(max(_kendall_variance(values), 0.0))
    low = max(round((len(slopes) - half) / 2) - 1, 0)
    high = min(round((len(slopes) + half) / 2), len(slopes) - 1)
    return _Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))


def autocorrelation(values: Values, lag: int) -> float:
    """Return the autocorrelation at a lag in values; 0 for constant values or fewer than two periods."""
    if not 0 < lag <= len(values) // 2:
        return 0.0
    centered = values - values.mean()
    whole = float(centered @ centered)
    return float(centered[:-lag] @ centered[lag:]) / whole if whole > 0 else 0.0


def running_median(values: Values, width: int) -> Values:
    """Return the median of the `width` values around each one; at the ends of those that are there."""
    half = width // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians: Values = np.nanmedian(windows, axis=1)
    return medians


def running_mean(values: Values, width: int) -> Values:
    """Return the mean of the `width` values around each one; at the ends of those that are there."""
    half, n = width // 2, len(values)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(n)
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, n)
    means: Values = (sums[last] - sums[first]) / (last - first)
    return means


def binomial_se(share: float, count: int) -> float:
    """Return the standard error of a share of `count` examples, infinite for none.

    A share of 0 or 1 has the error of half an example, since its own would be 0.
    """
    if count < 1:
        return math.inf
    inside = min(max(share, 0.5 / count), 1 - 0.5 / count)
    return math.sqrt(inside * (1 - inside) / count)


def gap_se(first: float, first_count: int, second: float, second_count: int) -> float:
    """Return the standard error of the difference of two shares of different examples."""
    return math.hypot(binomial_se(first, first_count), binomial_se(second, second_count))


def median_so_far(values: Values) -> Values:
    """Return the median (n,) of all values up to each one."""
    # A median of each prefix anew would take a time that grows with the square of the run's length
    known: list[float] = []
    medians = np.empty(len(values))
    for number, value in enumerate(values.tolist()):
        insort(known, value)
        middle = number // 2
        medians[number] = known[middle] if number % 2 == 0 else (known[middle] + known[middle + 1]) / 2
    return medians
