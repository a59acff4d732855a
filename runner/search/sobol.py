"""Points of a scrambled Sobol sequence for a round of a refining search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.search.exclusions import MOST_DRAWN, Exclusion, is_excluded
from runner.search.space import Point, Space


def sobol_points(space: Space, seed: int, count: int, exclusions: Sequence[Exclusion]) -> list[Point]:
    """Return points of a scrambled Sobol sequence that are not excluded, fewer if most are.

    Args:
        space: The ranges of the points.
        seed: Of the scrambling.
        count: How many points are wanted.
        exclusions: What a point must not be.
    """
    from scipy.stats.qmc import Sobol

    if count <= 0:
        return []
    # Powers of two are drawn, as the sequence is balanced only then
    sequence, power = Sobol(len(space.axes), scramble=True, rng=seed), math.ceil(math.log2(count))
    found: list[Point] = []
    while True:
        for row in sequence.random_base2(power):
            values = {axis.name: axis.value_at(float(share)) for axis, share in zip(space.axes, row, strict=True)}
            point = space.active_point(values)
            found += [] if is_excluded(space, exclusions, point) else [point]
        if len(found) >= count or sequence.num_generated >= MOST_DRAWN:
            return found[:count]
        power = int(math.log2(sequence.num_generated))
