"""The points of a refining search with their scores: the winner, and whether seeds can tell the best ones apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from runner.search.space import Point

# Fewest points to compare, and one more than the fewest degrees of freedom of the seeds
_FEWEST = 3


@dataclass
class Candidate:
    """A point with its scores by seed; NaN: a training without a score."""

    point: Point
    scores: dict[int, float] = field(default_factory=dict)

    def rank(self, sign: float, seeds: Iterable[int] | None = None) -> float:
        """Return the mean score of some seeds, by default all, larger is better; a missing score is the worst."""
        values = [self.scores.get(seed, math.nan) for seed in (self.scores if seeds is None else seeds)]
        return sign * statistics.fmean(values) if values and not any(map(math.isnan, values)) else -math.inf

    @property
    def is_scored(self) -> bool:
        """True if each of its trainings has a score."""
        return bool(self.scores) and not any(map(math.isnan, self.scores.values()))


def winner_of(candidates: Collection[Candidate], sign: float) -> Candidate:
    """Return the best of the points with the most seeds: one seed alone favors the lucky."""
    most = max((len(each.scores) for each in candidates if each.is_scored), default=0)
    finalists = [each for each in candidates if len(each.scores) >= most]
    return max(finalists, key=lambda each: each.rank(sign))


def are_separable(points: Sequence[Candidate], members: Sequence[Candidate], seed: int) -> bool:
    """Return True if the scores of points differ by more than those of seeds do: else none is known to be better.

    The variance of the points' scores with one seed is compared with the variance over seeds, pooled over the points
    that have several: the F-test at 5 %. With too few of them nothing is known, and the points count as separable.

    Args:
        points: The points that are compared.
        members: The points whose seeds tell the variance.
        seed: The seed that all points have.
    """
    from scipy.special import fdtri

    scores = [each.scores[seed] for each in points if each.is_scored and seed in each.scores]
    repeated = [list(each.scores.values()) for each in members if each.is_scored and len(each.scores) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if len(scores) < _FEWEST or freedom < _FEWEST - 1:
        return True
    noise = sum(statistics.variance(values) * (len(values) - 1) for values in repeated) / freedom
    return statistics.variance(scores) > noise * float(fdtri(len(scores) - 1, freedom, 0.95))
