"""A search space: one axis per key; an axis may apply to certain choices of another axis only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from runner.errors import ConfigError
from runner.search.decimals import exact, nth_in_range

# A choice is its text on the command line
_Value = str | int | float
# Name of an axis -> value, for the axes that apply
Point = dict[str, _Value]
# Most points of a grid
MAX_GRID_POINTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One dimension: listed choices, or numbers from `low` to `high`, both ends included."""

    key: str  # config key
    kind: Literal["choice", "int", "float"]
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None  # None: continuous
    log: bool = False
    when: tuple[str, tuple[str, ...]] | None = None  # (key, choices) for which the axis applies; None: always
    label: str = ""  # distinguishes axes of the same key

    @property
    def name(self) -> str:
        """The name of the axis in a study."""
        return f"{self.key}@{self.label}" if self.label else self.key

    def value_at(self, position: float) -> _Value:
        """Return the value at a position in [0, 1) of the axis, uniform on its linear or logarithmic scale."""
        if self.kind == "choice":
            return self.choices[int(position * len(self.choices))]
        if (count := self.count()) is not None and not self.log:
            return self.nth(min(int(position * count), count - 1))
        low, high = (self.low - 0.5, self.high + 0.5) if self.kind == "int" else (self.low, self.high)
        value = low * (high / low) ** position if self.log else low + position * (high - low)
        return self._inside(round(value)) if self.kind == "int" else _round_inside(value, self.low, self.high)

    def count(self) -> int | None:
        """Return how many values the axis has, None if it is continuous."""
        if self.kind == "choice":
            return len(self.choices)
        return None if self.step is None else round((exact(self.high) - exact(self.low)) / exact(self.step)) + 1

    def values(self) -> list[_Value] | None:
        """Return all values of the axis, None if it is continuous; an axis can be too long for that."""
        return None if (count := self.count()) is None else [self.nth(index) for index in range(count)]

    def nth(self, index: int) -> _Value:
        """Return a value of an axis that is not continuous, by its index."""
        if self.kind == "choice":
            return self.choices[index]
        value = nth_in_range(self.low, self.step or 1, index)
        return int(value) if self.kind == "int" else value

    def end_texts(self) -> list[str]:
        """Return the values to check, as text: every choice, or both ends."""
        if self.kind == "choice":
            return list(self.choices)
        return [self.text(int(end) if self.kind == "int" else end) for end in (self.low, self.high)]

    def text(self, value: _Value) -> str:
        """Return a value as text for the command line."""
        return value if isinstance(value, str) else repr(value)

    def rounded(self, value: _Value) -> _Value:
        """Return a sampled value as the run gets it: floats are rounded to six digits, or to the values of a range."""
        if not isinstance(value, float):
            return value
        if self.step is not None and self.kind == "float":
            return self.nth(round((exact(value) - exact(self.low)) / exact(self.step)))
        return _round_inside(value, self.low, self.high)

    def _inside(self, value: int) -> int:
        return min(max(value, int(self.low)), int(self.high))


def _round_inside(value: float, low: float, high: float) -> float:
    """Return a number rounded to six digits, because it names folders, and clipped to the interval."""
    short = float(f"{value:.6g}")
    return short if low <= short <= high else min(max(value, low), high)


@dataclass(frozen=True)
class Space:
    """All axes; an axis comes after those that it depends on."""

    axes: tuple[Axis, ...]

    @property
    def conditional(self) -> Axis | None:
        """An axis with a condition, None if all axes are unconditional."""
        return next((axis for axis in self.axes if axis.when), None)

    def applies(self, axis: Axis, point: Mapping[str, _Value]) -> bool:
        """Return True if an axis applies, given the values of the axes before it."""
        return axis.when is None or point.get(axis.when[0]) in axis.when[1]

    def active_point(self, values: Mapping[str, _Value]) -> Point:
        """Return the values of the axes that apply, given a value for every axis."""
        point: Point = {}
        for axis in self.axes:
            if self.applies(axis, point):
                point[axis.name] = values[axis.name]
        return point

    def ordered(self, values: Mapping[str, _Value]) -> Point:
        """Return the values of a point in the order of the axes, without those of other keys."""
        return {axis.name: values[axis.name] for axis in self.axes if axis.name in values}

    def first_point(self) -> Point:
        """Return the point with the first choice and the lower end of each axis."""
        return self.active_point({axis.name: axis.choices[0] if axis.choices else axis.low for axis in self.axes})

    def words(self, point: Mapping[str, _Value]) -> list[tuple[str, str]]:
        """Return the overrides of a point as (key, text)."""
        named = {axis.name: axis for axis in self.axes}
        return [(named[name].key, named[name].text(named[name].rounded(value))) for name, value in point.items()]

    def is_complete(self, point: Mapping[str, _Value]) -> bool:
        """Return True if a point has a value for each axis that applies."""
        return all(axis.name in point for axis in self.axes if self.applies(axis, point))

    def grid(self) -> list[Point]:
        """Return every point; raises ConfigError for an axis without listed values, or too many points."""
        counts: list[int] = []
        for axis in self.axes:
            count = axis.count()
            if count is None:
                raise ConfigError(
                    f"{axis.key}: got an interval, but a grid tries listed values only; "
                    f"list them ({axis.key}=0.1,0.01) or choose another hydra/sweeper/sampler"
                )
            counts.append(count)
        if (product := math.prod(counts)) > MAX_GRID_POINTS:
            raise ConfigError(f"{self.axes[0].key}: the grid has {product} points, must be at most {MAX_GRID_POINTS}")
        return list(self._distinct([axis.values() or [] for axis in self.axes]))

    def size(self) -> float:
        """Return the number of different points, inf if an axis is continuous or the grid is too large."""
        counts = [axis.count() for axis in self.axes]
        if None in counts or math.prod(each or 0 for each in counts) > MAX_GRID_POINTS:
            return math.inf
        return len(self.grid())

    def _distinct(self, columns: list[list[_Value]]) -> Iterator[Point]:
        seen = set()
        names = [axis.name for axis in self.axes]
        for values in itertools.product(*columns):
            point = self.active_point(dict(zip(names, values, strict=True)))
            if (key := tuple(point.items())) not in seen:
                seen.add(key)
                yield point
