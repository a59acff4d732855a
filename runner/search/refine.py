"""Coarse-to-fine search in rounds: quasi-random points, more seeds for the best ones, the next range from these.

A round tries points of a scrambled Sobol sequence with one seed each. The best third gets a second seed, the best third
of these a third one (successive halving across seeds). The survivors give the range of the next round. The search ends
when its trainings are used up, or when the points of a round differ no more than seeds do. The winner and the incumbent
are then trained with fresh seeds, because the score that a point was chosen by is biased upwards.

The rounds depend only on the space, the settings and the scores. So a search that was killed is repeated from its
scores, and continues with the first training that has none.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from runner.errors import ConfigError
from runner.search.candidates import Candidate, are_separable, winner_of
from runner.search.exclusions import KEY, MOST_DRAWN, Exclusion
from runner.search.ranges import next_axis, range_in_words
from runner.search.sobol import sobol_points
from runner.search.space import Point, Space

# A round keeps one in so many points, and each further seed one in so many of these
_REDUCTION = 3
# Rounds before the search may end because its points are not separable
_FEWEST_ROUNDS = 2
# Fewest points of a round, and of those that get one more seed
_FEWEST_POINTS, _FEWEST_SURVIVORS = 3, 2


class Request(NamedTuple):
    """One training: a point, a seed, and what it is for."""

    point: Point
    seed: int
    stage: str


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """The settings of the rounds; the widest ranges are those of the search's space."""

    start: Space  # the ranges of the first round
    trainings: int
    points: int  # of a round
    seeds: int  # most of a point, before the winner is known
    confirm_seeds: int  # fresh ones, of the winner and of the incumbent
    first_seed: int
    sampler_seed: int
    sign: float  # 1 if a larger score is better, else -1
    initial: tuple[Point, ...] = ()  # tried first; the first one is the incumbent
    exclusions: tuple[Exclusion, ...] = ()  # points that are never tried


@dataclass(kw_only=True)
class Progress:
    """State of a search: the trainings to come, and how it ended if it has."""

    wanted: list[Request] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # a line for each round
    winner: Point | None = None
    incumbent: Point | None = None
    reason: str | None = None  # why the rounds ended


_Rounds = Generator[list[Request], list[float], None]


def replay(space: Space, settings: RefineSettings, known: Mapping[tuple[str, int], float]) -> Progress:
    """Return how far a search is.

    Args:
        space: The widest ranges.
        settings: The settings.
        known: The score of each training that has ended, by `training_key`; NaN if it has none.
    """
    progress = Progress()
    rounds = _rounds(space, settings, progress)
    batch = next(rounds)
    while True:
        keys = [training_key(space, each.point, each.seed) for each in batch]
        progress.wanted = [each for each, key in zip(batch, keys, strict=True) if key not in known]
        if progress.wanted:
            return progress
        try:
            batch = rounds.send([known[key] for key in keys])
        except StopIteration:
            return progress


def training_key(space: Space, point: Point, seed: int) -> tuple[str, int]:
    """Return what identifies a training: the words of its point, and its seed."""
    return " ".join(f"{key}={text}" for key, text in space.words(space.ordered(point))), seed


def _rounds(space: Space, settings: RefineSettings, progress: Progress) -> _Rounds:
    """Yield the trainings of each step, and get their scores."""
    current, number = settings.start, 0
    pool: dict[str, Candidate] = {}
    left = settings.trainings - 2 * settings.confirm_seeds
    while progress.reason is None:
        number += 1
        count = _affordable(settings, left)
        points = _points_of(current, settings, number, count)
        count, stage = len(points), f"round {number}"
        left -= yield from _train(space, pool, [Request(each, settings.first_seed, stage) for each in points])
        members = [each for each in pool.values() if _inside(each.point, current)] or list(pool.values())
        left -= yield from _halve(space, pool, members, settings, stage, count)
        survivors = _best_third(members, settings)
        if number == 1:
            progress.incumbent = (settings.initial or [winner_of(pool.values(), settings.sign).point])[0]
        progress.notes.append(f"{stage}: {len(points)} points, {range_in_words(current)}")
        if not points:
            progress.reason = f"{KEY} leaves out every point of {stage}"
        elif _affordable(settings, left) < _FEWEST_POINTS:
            progress.reason = f"no other round fits into its {settings.trainings} trainings"
        newest = [pool[training_key(space, each, 0)[0]] for each in points]
        if (
            progress.reason is None
            and number >= _FEWEST_ROUNDS
            and not are_separable(newest, members, settings.first_seed)
        ):
            progress.reason = f"the {len(newest)} points of {stage} differ no more than seeds do"
        current = _narrowed(space, current, survivors)
    progress.winner = winner_of(pool.values(), settings.sign).point
    yield from _confirm(space, settings, progress)


def _survivors(count: int, seeds: int) -> list[int]:
    """Return how many of so many points get a second seed, a third one, ..."""
    kept = []
    for _ in range(1, seeds):
        count = max(_FEWEST_SURVIVORS, -(-count // _REDUCTION))
        kept.append(count)
    return kept


def round_cost(points: int, seeds: int) -> int:
    """Return how many trainings a round takes at most."""
    return points + sum(_survivors(points, seeds))


def _affordable(settings: RefineSettings, left: int) -> int:
    """Return the most points of a round for whose trainings, with those of further seeds, the budget is enough."""
    counts = range(settings.points, 0, -1)
    return next((count for count in counts if round_cost(count, settings.seeds) <= left), 0)


def _train(
    space: Space, pool: dict[str, Candidate], wanted: Sequence[Request]
) -> Generator[list[Request], list[float], int]:
    """Train points, add their scores to the pool, and return how many trainings that took."""
    if not wanted:
        return 0
    scores = yield list(wanted)
    for each, score in zip(wanted, scores, strict=True):
        key = training_key(space, each.point, 0)[0]
        pool.setdefault(key, Candidate(each.point)).scores[each.seed] = score
    return len(wanted)


def _halve(
    space: Space, pool: dict[str, Candidate], members: list[Candidate], settings: RefineSettings, stage: str, count: int
) -> Generator[list[Request], list[float], int]:
    """Give a third of `count` points one more seed, the best ones, and a third of these another one.

    Returns how many trainings that took.
    """
    took = 0
    for more, kept in enumerate(_survivors(count, settings.seeds), 1):
        # Compared on the same seeds: a seed can be better for all points
        seeds = range(settings.first_seed, settings.first_seed + more)
        best = sorted(members, key=lambda each: -each.rank(settings.sign, seeds))[:kept]
        seed = settings.first_seed + more
        wanted = [Request(each.point, seed, stage) for each in best if seed not in each.scores and each.is_scored]
        took += yield from _train(space, pool, wanted)
    return took


def _best_third(members: Sequence[Candidate], settings: RefineSettings) -> list[Candidate]:
    """Return the best third by the first seed, which all have; those with more seeds first, as these chose them."""
    by_first = sorted(members, key=lambda each: -each.rank(settings.sign, [settings.first_seed]))
    kept = by_first[: -(-len(by_first) // _REDUCTION)]
    return sorted(kept, key=lambda each: (-len(each.scores), -each.rank(settings.sign)))


def _confirm(space: Space, settings: RefineSettings, progress: Progress) -> _Rounds:
    """Train the winner and the incumbent with seeds that chose neither."""
    assert progress.winner is not None and progress.incumbent is not None
    fresh = [settings.first_seed + settings.seeds + number for number in range(settings.confirm_seeds)]
    named = {"winner": progress.winner, "incumbent": progress.incumbent}
    if training_key(space, progress.winner, 0) == training_key(space, progress.incumbent, 0):
        del named["incumbent"]
    wanted = [Request(point, seed, name) for name, point in named.items() for seed in fresh]
    if wanted:
        yield wanted


def _points_of(space: Space, settings: RefineSettings, number: int, count: int) -> list[Point]:
    """Return the points of a round, fewer if others are excluded; raises ConfigError if the first round has none."""
    points = list(settings.initial)[:count] if number == 1 else []
    points += sobol_points(space, settings.sampler_seed + number, count - len(points), settings.exclusions)
    if number == 1 and not points:
        raise ConfigError(f"{KEY}: leaves out each of {MOST_DRAWN} points")
    return points


def _inside(point: Point, space: Space) -> bool:
    """Return True if a point is in the ranges of a round."""
    for axis in space.axes:
        value = point.get(axis.name)
        if value is None:
            continue
        if isinstance(value, str):
            if value not in axis.choices:
                return False
        elif not axis.low <= value <= axis.high:
            return False
    return True


def _narrowed(widest: Space, current: Space, survivors: Sequence[Candidate]) -> Space:
    """Return the ranges of the next round."""
    axes = []
    for wide, axis in zip(widest.axes, current.axes, strict=True):
        values = [each.point[axis.name] for each in survivors if axis.name in each.point and each.is_scored]
        axes.append(next_axis(axis, wide, values) if values else axis)
    return replace(current, axes=tuple(axes))
