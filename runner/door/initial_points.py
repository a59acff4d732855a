"""The first points of a search, `hydra.sweeper.initial`: those that somebody already has reason to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.door.overrides import parse_override
from runner.errors import ConfigError, brief, shown, unknown
from runner.search.compatible import outside
from runner.search.space import Axis, Point, Space

_KEY = "hydra.sweeper.initial"


def check_initial(values: Any, space: Space, sampler: str) -> tuple[Point, ...]:
    """Return the points that are tried first; keys that they leave out are sampled.

    Raises ConfigError for a key or a value that is not in the space.
    """
    if not isinstance(values, list) or not all(isinstance(each, Mapping) and each for each in values):
        raise ConfigError(f"{_KEY}: got {brief(str(values))}, must be a list of {{key: value, ...}}")
    if values and sampler == "grid":
        raise ConfigError(f"{_KEY}: a grid tries every point anyway; choose another hydra/sweeper/sampler")
    return tuple(_point(each, space) for each in values)


def _point(given: Mapping[str, Any], space: Space) -> Point:
    """Return one point by the names of the axes."""
    keys = {axis.key for axis in space.axes}
    if wrong := [str(key) for key in given if key not in keys]:
        raise unknown(_KEY, "key of the search", wrong[0], sorted(keys))
    point: Point = {}
    for axis in space.axes:
        # A condition is known where its key comes first; without its value the axis may apply
        if axis.key in given and (not axis.when or axis.when[0] not in point or space.applies(axis, point)):
            point[axis.name] = _value(axis, given[axis.key])
    if left := [str(key) for key in given if key not in {axis.key for axis in space.axes if axis.name in point}]:
        raise ConfigError(f"{_KEY}: {left[0]} does not apply to the other values of {brief(str(dict(given)))}")
    return point


def _value(axis: Axis, value: Any) -> str | int | float:
    """Return a value as the axis has it."""
    if axis.kind == "choice":
        texts = [text for text in axis.choices if parse_override(f"{axis.key}={text}").value == value]
        if texts:
            return texts[0]
        raise ConfigError(f"{_KEY}: {axis.key}: got {brief(shown(value))}, must be one of {', '.join(axis.choices)}")
    if problem := outside(axis, value):
        raise ConfigError(f"{_KEY}: {axis.key}: got {brief(shown(value))}, must be {problem}")
    return int(value) if axis.kind == "int" else float(value)
