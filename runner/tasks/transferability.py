"""Scores that say without training how well features suit labels: LogME and the H-score.

Both look at the features of training examples only. They rank features of one data set; their values mean nothing
across data sets.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_Features = NDArray[np.float64]
_Labels = NDArray[np.int64]
# Eigenvalues below this share of the largest are rounding errors
_RANK = 1e-11
# Ratios of the precisions of weights and noise that are tried, in units of the mean eigenvalue, and the refinements
_LOWEST, _HIGHEST, _POINTS, _REFINEMENTS = 1e-10, 1e10, 201, 4


def logme(features: _Features, labels: _Labels) -> float:
    """Return LogME (You et al. 2021, arXiv 2102.11005): the log evidence of a linear model per example and class.

    The targets of a class are 1 for its examples and 0 for others, with a model y = f w + noise for each class. Weights
    and noise are Gaussian with the precisions that maximize the evidence. Classes without examples are left out.

    Args:
        features: Features (N, D); they are taken as they are.
        labels: Labels (N,).
    """
    targets = (labels[:, None] == np.unique(labels)[None]).astype(np.float64)
    values, squares = _spectrum(features, targets)
    rest = np.maximum((targets**2).sum(0) - squares.sum(0), 0.0)
    return float(np.mean([_log_evidence(values, squares[:, k], rest[k], len(labels)) for k in range(len(rest))]))


def _spectrum(features: _Features, targets: _Features) -> tuple[_Features, _Features]:
    """Return the eigenvalues (R,) of F F^T above 0, and the squared parts (R, K) of targets along its eigenvectors."""
    wide = features.shape[1] > features.shape[0]
    values, vectors = np.linalg.eigh(features @ features.T if wide else features.T @ features)
    kept = values > _RANK * max(float(values[-1]), 0.0)
    values, vectors = values[kept], vectors[:, kept]
    if wide:
        return values, (vectors.T @ targets) ** 2
    return values, (vectors.T @ (features.T @ targets)) ** 2 / values[:, None]


def _log_evidence(values: _Features, squares: _Features, rest: float, count: int) -> float:
    """Return the largest log evidence per example of one target over both precisions.

    For a ratio t of the precisions, weights / noise, the best precision of the noise has a closed form. The maximum
    over t is found on a grid that is refined: the evidence may have several maxima.
    """
    scale = float(values.mean()) if len(values) else 1.0
    low, high = math.log(_LOWEST * scale), math.log(_HIGHEST * scale)
    best = -math.inf
    for _ in range(_REFINEMENTS):
        grid = np.linspace(low, high, _POINTS)
        found = _profile(np.exp(grid), values, squares, rest, count)
        place = int(found.argmax())
        best = max(best, float(found[place]))
        low, high = grid[max(0, place - 1)], grid[min(_POINTS - 1, place + 1)]
    return best / count


def _profile(ratios: _Features, values: _Features, squares: _Features, rest: float, count: int) -> _Features:
    """Return the log evidence at ratios (T,) of the precisions, each with its best precision of the noise."""
    shrunk = ratios[:, None] / (ratios[:, None] + values[None])
    # Targets that are fitted exactly would have an infinite evidence
    misfit = np.maximum(rest + shrunk @ squares, np.finfo(np.float64).tiny)
    found: _Features = np.log(shrunk).sum(1) + count * (math.log(count / (2 * math.pi)) - np.log(misfit) - 1)
    return found / 2


def h_score(features: _Features, labels: _Labels) -> float:
    """Return the H-score (Bao et al. 2019): trace of cov(features)^-1 cov(class means), from 0 to K - 1.

    The pseudo-inverse takes directions without variance for no directions.

    Args:
        features: Features (N, D).
        labels: Labels (N,).
    """
    centered = features - features.mean(0)
    classes = np.unique(labels)
    shares = np.array([(labels == each).mean() for each in classes])
    means = np.stack([centered[labels == each].mean(0) for each in classes])
    values, vectors = np.linalg.eigh(centered.T @ centered / len(labels))
    kept = values > _RANK * max(float(values[-1]), 0.0)
    along = means @ vectors[:, kept]
    return float((shares[:, None] * along**2 / values[kept]).sum())
