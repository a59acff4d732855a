"""The gain of an ensemble with its interval over examples, and how much its members differ.

M members, N examples. The unit of replication is an example: the interval is about these models on other examples, and
not about other seeds, for which `runner.comparing` has its tests.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from runner.comparing.statistics import ALPHA
from runner.ensembles.calibration import Array, Labels

RESAMPLES = 10_000


@dataclass(frozen=True)
class Gain:
    """A difference in accuracy with its 95 % bootstrap interval over examples; the ends of one example are NaN."""

    value: float
    low: float
    high: float


def paired_gain(differences: Array, seed: int) -> Gain:
    """Return the mean of paired differences (N,) with the interval of the percentile bootstrap over examples.

    A resample of examples holds each distinct difference a multinomial number of times, so these numbers are drawn.
    """
    count = len(differences)
    if not count:
        return Gain(math.nan, math.nan, math.nan)
    if count == 1:
        return Gain(float(differences[0]), math.nan, math.nan)
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(count, counts / count, size=RESAMPLES)
    low, high = np.quantile(drawn @ values / count, [ALPHA / 2, 1 - ALPHA / 2])
    return Gain(float(differences.mean()), float(low), float(high))


def disagreement(predicted: Labels) -> float:
    """Return the share of examples on which two members (M, N) differ, mean over pairs."""
    pairs = [float((one != other).mean()) for one, other in itertools.combinations(predicted, 2) if len(one)]
    return fmean(pairs) if pairs else math.nan


def error_correlation(wrong: NDArray[np.bool_]) -> float:
    """Return Pearson's correlation of the errors (M, N) of two members, mean over the pairs in which both have some.

    It is computed from counts, so that equal members have exactly 1.
    """
    count, both = wrong.shape[1], wrong.astype(float) @ wrong.T
    pairs = []
    for one, other in itertools.combinations(range(len(wrong)), 2):
        spread = [float(both[member, member] * (count - both[member, member])) for member in (one, other)]
        if min(spread) > 0:
            joint = count * both[one, other] - both[one, one] * both[other, other]
            pairs.append(float(joint) / math.sqrt(spread[0] * spread[1]))
    return fmean(pairs) if pairs else math.nan
