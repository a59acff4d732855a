"""The points that a search leaves out, `hydra.sweeper.exclude`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import IntervalSweep

from runner.door.overrides import parse_override
from runner.errors import ConfigError, brief, shown, unknown
from runner.search.compatible import outside
from runner.search.exclusions import KEY, Exclusion
from runner.search.space import Axis, Space


def check_exclusions(values: Any, space: Space) -> tuple[Exclusion, ...]:
    """Return the entries; raises ConfigError for a key or a value that is not in the space."""
    if not isinstance(values, list) or not all(isinstance(each, Mapping) and each for each in values):
        raise ConfigError(f"{KEY}: got {brief(str(values))}, must be a list of {{key: value, ...}}")
    return tuple({str(key): _part(str(key), value, space) for key, value in each.items()} for each in values)


def _part(key: str, value: Any, space: Space) -> frozenset[str] | tuple[float, float]:
    """Return the texts of the choices that a value stands for, or the ends of its range."""
    axes = [axis for axis in space.axes if axis.key == key]
    if not axes:
        raise unknown(KEY, "key of the search", key, sorted({axis.key for axis in space.axes}))
    if any(axis.kind == "choice" for axis in axes):
        choices = dict.fromkeys(text for axis in axes for text in axis.choices)
        texts = frozenset(text for text in choices if _equals(parse_override(f"{key}={text}").value, value))
        if not texts:
            raise ConfigError(f"{KEY}: {key}: got {brief(shown(value))}, must be one of {', '.join(choices)}")
        return texts
    if isinstance(value, str) and value.startswith("interval("):
        return _ends(key, value, axes)
    problems = [outside(axis, value) for axis in axes]
    if all(problems):
        raise ConfigError(f"{KEY}: {key}: got {brief(shown(value))}, must be {problems[0]}, or interval(low,high)")
    if all(axis.kind == "float" and axis.step is None for axis in axes):
        raise ConfigError(f"{KEY}: {key}: got {value}, which is never drawn exactly; use interval(low,high)")
    return float(value), float(value)


def _ends(key: str, text: str, axes: list[Axis]) -> tuple[float, float]:
    """Return the ends of a range that overlaps with that of an axis."""
    found = parse_override(f"{key}={text}").value
    low, high = (found.start, found.end) if isinstance(found, IntervalSweep) else (1.0, 0.0)
    if low is None or high is None or not any(axis.low <= high and low <= axis.high and low <= high for axis in axes):
        spans = " or ".join(f"{axis.low:g} to {axis.high:g}" for axis in axes)
        raise ConfigError(f"{KEY}: {key}: got {brief(text)}, must overlap with {spans}")
    return float(low), float(high)


def _equals(one: Any, other: Any) -> bool:
    """Return True if two values are the same: 1 and 1.0 are, 1 and true are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
