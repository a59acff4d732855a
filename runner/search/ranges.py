"""The range of an axis in the next round of a refining search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from runner.search.decimals import nth_in_range
from runner.search.space import Axis, Space

# Smallest share of the range that the next one keeps
_LEAST = 0.25
# A best point in this outer share of the range moves its end outwards, by a quarter of the range
_EDGE, _OUTWARDS = 0.1, 0.25


def next_axis(axis: Axis, widest: Axis, values: Sequence[str | int | float]) -> Axis:
    """Return an axis with its range in the next round.

    Args:
        axis: The axis with its range in this round.
        widest: The axis with the ends that the range must not leave.
        values: Those of the survivors, the best one first.
    """
    if axis.kind == "choice":
        kept = tuple(choice for choice in axis.choices if choice in values)
        return replace(axis, choices=kept or axis.choices)
    low, high = next_range(
        [_position(axis, float(value)) for value in values], _position(axis, axis.low), _position(axis, axis.high)
    )
    least, most = _position(axis, widest.low), _position(axis, widest.high)
    ends = [_value(axis, min(max(end, least), most)) for end in (low, high)]
    if axis.kind == "int":
        ends = [float(math.floor(ends[0])), float(math.ceil(ends[1]))]
    if axis.step is not None:
        ends = [_on_step(axis, end) for end in ends]
    return replace(axis, low=max(min(ends), widest.low), high=min(max(ends), widest.high))


def next_range(values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Return the ends of the next range on the linear scale of an axis; `values` has the best one first."""
    width, best = high - low, values[0]
    start, end = min(values), max(values)
    if end - start < _LEAST * width:
        middle = (start + end) / 2
        start, end = middle - _LEAST * width / 2, middle + _LEAST * width / 2
    start, end = max(start, low), min(end, high)
    if best - low <= _EDGE * width:
        start = low - _OUTWARDS * width
    if high - best <= _EDGE * width:
        end = high + _OUTWARDS * width
    return start, end


def _position(axis: Axis, value: float) -> float:
    """Return a value on the scale on which the axis is uniform."""
    return math.log(value) if axis.log else value


def _value(axis: Axis, position: float) -> float:
    return float(f"{math.exp(position) if axis.log else position:.6g}")


def _on_step(axis: Axis, value: float) -> float:
    """Return the nearest value of an axis that has steps."""
    assert axis.step is not None
    return float(nth_in_range(axis.low, axis.step, round((value - axis.low) / axis.step)))


def range_in_words(space: Space) -> str:
    """Return the ranges of a space in words."""
    return ", ".join(
        f"{axis.name} {'|'.join(axis.choices) if axis.kind == 'choice' else f'{axis.low:.3g} to {axis.high:.3g}'}"
        for axis in space.axes
    )
