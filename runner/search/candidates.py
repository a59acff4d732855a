"""The points of a refining search with their scores: the winner, and whether seeds can tell the best ones apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from runner.search.space import Point

# Best points that must be separable from the best one
_COMPARED = 4


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


def inseparable(survivors: Sequence[Candidate], members: Sequence[Candidate], sign: float) -> int:
    """Return how many of the best points the seeds cannot tell apart from the best one, 0 if they can or too few know.

    The spread over seeds is pooled over the points of the round, `members`; the differences are compared with
    Student's t at 95 %.
    """
    from scipy.special import stdtrit

    repeated = [each for each in survivors if each.is_scored and len(each.scores) > 1][:_COMPARED]
    spread = [each.scores.values() for each in members if each.is_scored and len(each.scores) > 1]
    freedom = sum(len(scores) - 1 for scores in spread)
    if len(repeated) < 2 or freedom < 2:
        return 0
    squares = sum(statistics.variance(scores) * (len(scores) - 1) for scores in spread)
    sd, limit = math.sqrt(squares / freedom), float(stdtrit(freedom, 0.975))
    best, *others = sorted(repeated, key=lambda each: -each.rank(sign))
    apart = [
        best.rank(sign) - each.rank(sign) > limit * sd * math.sqrt(1 / len(best.scores) + 1 / len(each.scores))
        for each in others
    ]
    return 0 if any(apart) else len(repeated)
