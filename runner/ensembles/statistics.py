"""The combined prediction of several members, and what it gains: scores, intervals over examples, diversity, curve.

M members, N examples, C classes. A member with the weight 0 is none of the ensemble; it may be the best one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import mean

import numpy as np

from runner.comparing.statistics import sample_sd
from runner.engine.saving.ensemble_file import Combine
from runner.ensembles.calibration import (
    Array,
    Labels,
    PredictionScores,
    chunks,
    label_nll,
    log_sum_exp,
    predicted_classes,
    prediction_scores,
)
from runner.ensembles.gains import Gain, disagreement, error_correlation, paired_gain

# Subsets of one size in the curve, at most and at least; numbers of all their predictions at most
_MOST_SUBSETS, _LEAST_SUBSETS, _MOST_NUMBERS = 64, 8, 500_000_000


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The scores of ensembles of some members: mean, sd and range over subsets; the sd of one subset is NaN."""

    members: int
    subsets: int
    has_all: bool  # of the subsets of this size; False if they are sampled
    accuracy: float
    sd: float
    lowest: float
    highest: float
    nll: float


@dataclass(frozen=True, kw_only=True)
class EnsembleStatistics:
    """The scores of an ensemble, and its gain over its members.

    Attributes:
        members: The scores of each member, also of those with the weight 0.
        weights: The weight of each member.
        best: The position of the member that validation found best.
        mean: The mean scores of the members with a weight.
        sd: Their standard deviations (n - 1), NaN for one member.
        ensemble: The scores of the combined prediction.
        gain_over_mean: The gain in accuracy over the mean of the members with a weight.
        gain_over_best: The gain in accuracy over the best member.
        disagreement: The share of examples that two members predict differently, mean over pairs; NaN for one member.
        error_correlation: Pearson's correlation of the errors of two members, mean over pairs; NaN where undefined.
        curve: The scores by number of members.
        examples: The number of examples.
    """

    members: tuple[PredictionScores, ...]
    weights: tuple[float, ...]
    best: int
    mean: PredictionScores
    sd: PredictionScores
    ensemble: PredictionScores
    gain_over_mean: Gain
    gain_over_best: Gain
    disagreement: float
    error_correlation: float
    curve: tuple[CurvePoint, ...]
    examples: int


def combine(log_p: Array, weights: Array, how: Combine) -> Array:
    """Return the log-probabilities (N, C) of an ensemble; those of equal members are theirs bit for bit.

    With `probabilities` they are the logarithm of the weighted mean probability, with `logits` the weighted mean of the
    logits. A row in which the members exclude every class together gets equal probabilities.

    Args:
        log_p: Log-probabilities (M, N, C).
        weights: Weights (M,), at least one above 0.
        how: What is averaged.
    """
    used = [(float(weights[member]), log_p[member]) for member in np.flatnonzero(weights)]
    return _mean_probability(used) if how == "probabilities" else _mean_logit(used)


def _mean_probability(used: Sequence[tuple[float, Array]]) -> Array:
    """Return the logarithm of the weighted mean probability."""
    top = used[0][1]
    for _, each in used[1:]:
        top = np.maximum(top, each)
    shift, total, share = np.where(np.isneginf(top), 0.0, top), np.zeros_like(top), 0.0
    for weight, each in used:
        total += weight * np.exp(each - shift)
        share += weight
    with np.errstate(divide="ignore"):
        # The quotient of equal members is exactly 1
        return np.log(total / share) + shift


def _mean_logit(used: Sequence[tuple[float, Array]]) -> Array:
    """Return the weighted mean of log-probabilities, with the total probability that the members have."""
    first = used[0][1]
    total, mass, share, excluded = np.zeros_like(first), np.zeros(len(first)), 0.0, np.zeros(first.shape, bool)
    own = log_sum_exp(first)
    with np.errstate(invalid="ignore"):
        for weight, each in used:
            # Differences from the first, which are exactly 0 for equal members
            total += weight * (each - first)
            mass += weight * (log_sum_exp(each) - own)
            share += weight
            excluded |= np.isneginf(each)
        mean = np.where(excluded, -np.inf, first + total / share)
        found = mean - (log_sum_exp(mean) - (own + mass / share))[:, None]
    return np.where(excluded.all(1, keepdims=True), -math.log(first.shape[1]), found)


def statistics(log_p: Array, labels: Labels, weights: Array, how: Combine, best: int, seed: int) -> EnsembleStatistics:
    """Return the statistics of an ensemble on some examples.

    Args:
        log_p: Log-probabilities (M, N, C) of the members.
        labels: Labels (N,).
        weights: Weights (M,) that sum to 1.
        how: How the members are combined.
        best: The position of the member that validation found best; its weight may be 0.
        seed: Seed of the bootstrap, and of the subsets where not all are tried.
    """
    used = [int(member) for member in np.flatnonzero(weights)]
    predicted = np.stack([predicted_classes(each) for each in log_p])
    together = combine(log_p, weights, how)
    right = predicted == labels
    combined_right = (predicted_classes(together) == labels).astype(float)
    scores = [prediction_scores(each, labels) for each in log_p]
    return EnsembleStatistics(
        members=tuple(scores),
        weights=tuple(map(float, weights)),
        best=best,
        mean=_over(scores, used, mean),
        sd=_over(scores, used, sample_sd),
        ensemble=prediction_scores(together, labels),
        gain_over_mean=paired_gain(combined_right - right[used].sum(0) / len(used), seed),
        gain_over_best=paired_gain(combined_right - right[best], seed),
        disagreement=disagreement(predicted[used]),
        error_correlation=error_correlation(~right[used]),
        curve=_curve(log_p[used], labels, weights[used], how, seed),
        examples=len(labels),
    )


def _over(
    scores: Sequence[PredictionScores], used: Sequence[int], reduce: Callable[[list[float]], float]
) -> PredictionScores:
    """Return a statistic of each score over some members; the sd of numbers that are not finite is NaN."""
    rows = [asdict(scores[member]) for member in used]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    undefined = {name: reduce is sample_sd and not all(map(math.isfinite, values)) for name, values in columns.items()}
    return PredictionScores(
        **{name: math.nan if undefined[name] else reduce(values) for name, values in columns.items()}
    )


def _curve(log_p: Array, labels: Labels, weights: Array, how: Combine, seed: int) -> tuple[CurvePoint, ...]:
    """Return the scores of ensembles of 1 to M members, over all subsets or so many sampled ones."""
    members, numbers = len(log_p), max(1, log_p[0].size)
    most = min(_MOST_SUBSETS, max(_LEAST_SUBSETS, _MOST_NUMBERS // (numbers * members)))
    draw = np.random.default_rng(seed)
    sizes = [_subsets(members, size, most if size > 1 else members, draw) for size in range(1, members + 1)]
    accuracies, nlls = _subset_scores(log_p, labels, weights, how, [subset for size in sizes for subset in size])
    points, start = [], 0
    for size, subsets in enumerate(sizes, 1):
        part = slice(start, start + len(subsets))
        found, start = accuracies[part], part.stop
        points.append(
            CurvePoint(
                members=size,
                subsets=len(subsets),
                has_all=len(subsets) == math.comb(members, size),
                accuracy=mean(found),
                sd=sample_sd(found),
                lowest=min(found),
                highest=max(found),
                nll=mean(nlls[part]),
            )
        )
    return tuple(points)


def _subsets(members: int, size: int, most: int, draw: np.random.Generator) -> list[tuple[int, ...]]:
    """Return all subsets of a size, or so many different ones."""
    if math.comb(members, size) <= most:
        return list(itertools.combinations(range(members), size))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < most:
        found[tuple(sorted(map(int, draw.choice(members, size, replace=False))))] = None
    return list(found)


def _subset_scores(
    log_p: Array, labels: Labels, weights: Array, how: Combine, subsets: Sequence[tuple[int, ...]]
) -> tuple[list[float], list[float]]:
    """Return accuracy and negative log-likelihood of the ensembles of some subsets of the members."""
    right, nll, count = np.zeros(len(subsets)), np.zeros(len(subsets)), len(labels)
    score = _score_mean_probability if how == "probabilities" else _score_mean_logit
    for part in chunks(count, log_p.shape[0] * log_p.shape[2]):
        for place, found in enumerate(score(log_p[:, part], labels[part], weights, subsets)):
            right[place] += found[0]
            nll[place] += found[1]
    return (right / (count or math.nan)).tolist(), (nll / (count or math.nan)).tolist()


def _score_mean_probability(
    log_p: Array, labels: Labels, weights: Array, subsets: Sequence[tuple[int, ...]]
) -> Iterator[tuple[int, float]]:
    """Yield the correct predictions and the sum of the negative log-likelihood of each subset.

    The classes come from sums of probabilities, which the subsets share; the likelihood from the labels' column alone.
    """
    terms = weights[:, None, None] * np.exp(log_p)
    own = log_p[:, np.arange(len(labels)), labels][:, :, None]
    for subset in subsets:
        total: Array = sum((terms[member] for member in subset[1:]), terms[subset[0]])
        likelihood = _mean_probability([(float(weights[member]), own[member]) for member in subset])
        yield int((predicted_classes(total) == labels).sum()), float((0.0 - likelihood).sum())


def _score_mean_logit(
    log_p: Array, labels: Labels, weights: Array, subsets: Sequence[tuple[int, ...]]
) -> Iterator[tuple[int, float]]:
    """Yield the same of ensembles that average logits."""
    terms = weights[:, None, None] * log_p
    for subset in subsets:
        mean: Array = sum((terms[member] for member in subset[1:]), terms[subset[0]]) / sum(weights[list(subset)])
        mass = log_sum_exp(mean)
        with np.errstate(invalid="ignore"):
            likelihood = label_nll(mean, labels) + mass
        # Members that exclude every class together leave equal probabilities
        likelihood = np.where(np.isneginf(mass), math.log(mean.shape[1]), likelihood)
        yield int((predicted_classes(mean) == labels).sum()), float(likelihood.sum())
