"""Points of a search that are left out: those that have all values of an entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.search.space import Point, Space

KEY = "hydra.sweeper.exclude"
# Key -> texts of choices, or both ends of a range of numbers
Exclusion = Mapping[str, frozenset[str] | tuple[float, float]]
# Random points of which one must be left
MOST_DRAWN = 10_000


def is_excluded(space: Space, exclusions: Sequence[Exclusion], point: Point) -> bool:
    """Return True if a point has all values of an entry; a key that does not apply to it has no value."""
    if not exclusions:
        return False
    values = {axis.key: axis.rounded(point[axis.name]) for axis in space.axes if axis.name in point}
    return any(all(key in values and _matches(values[key], part) for key, part in e.items()) for e in exclusions)


def _matches(value: str | int | float, part: frozenset[str] | tuple[float, float]) -> bool:
    if isinstance(part, frozenset):
        return value in part
    return not isinstance(value, str) and part[0] <= value <= part[1]
