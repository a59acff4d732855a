"""Checks that an existing study is one of this search: same score, same search space, same fixed settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, brief, shown
from runner.numerics import completed
from runner.printing import counted
from runner.search.records import Search
from runner.search.samplers import distribution
from runner.search.space import Axis, Space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_NAME = "hydra.sweeper.study_name"
# The attribute of a study with what its points have in common
_ATTRIBUTE = "runner search"
_OTHER = "choose another name"


def check_compatible(study: Study, search: Search, trials: Sequence[FrozenTrial]) -> None:
    """Raise ConfigError unless a study is of this search; a new one gets the settings that its points share."""
    exists = f"{_NAME}: '{search.study_name}' exists with"
    directions = [each.name.lower() for each in study.directions]
    if len(directions) != len(search.directions):
        raise ConfigError(f"{exists} {counted(len(directions), 'score')} (here {len(search.directions)}); {_OTHER}")
    if directions != search.directions:
        raise ConfigError(f"{exists} direction {', '.join(directions)}; {_OTHER}")
    for each in trials:
        if problem := _other_space(each, search.space):
            raise ConfigError(f"{exists} {problem}; {_OTHER}")
        if problem := _not_enqueueable(each, search.space):
            raise ConfigError(f"{exists} an enqueued point that cannot be run: {problem}")
    ours = json.loads(json.dumps(search.shared_settings()))
    known = study.user_attrs.get(_ATTRIBUTE)
    if not isinstance(known, Mapping):
        study.set_user_attr(_ATTRIBUTE, ours)
    elif problem := _difference(known, ours):
        raise ConfigError(f"{exists} {problem}; {_OTHER}")


def _other_space(trial: FrozenTrial, space: Space) -> str | None:
    """Return in which way a trial is of another search space, None if it is of this one."""
    axes = {axis.name: axis for axis in space.axes}
    for name, theirs in trial.distributions.items():
        if name not in axes:
            return f"another key, {brief(name)}"
        if theirs != distribution(axes[name]):
            return f"other values of {name}"
    # A process may have been killed between two values of a point
    if trial.state.name in ("COMPLETE", "PRUNED") and not space.is_complete(trial.params):
        missing = next(axis.name for axis in space.axes if axis.name not in trial.params)
        return f"points without {missing}"
    return None


def _not_enqueueable(trial: FrozenTrial, space: Space) -> str | None:
    """Return what is wrong with the values of a point that waits in the study, None if nothing is."""
    return enqueued_problem(trial, space) if trial.state.name == "WAITING" else None


def enqueued_problem(trial: FrozenTrial, space: Space) -> str | None:
    """Return why a point that somebody enqueued cannot be run, None if it can; axes without a value are sampled."""
    fixed = trial.system_attrs.get("fixed_params", {})
    axes = {axis.name: axis for axis in space.axes}
    for name, value in fixed.items() if isinstance(fixed, Mapping) else ():
        if name not in axes:
            return f"{brief(name)}: not a key of the search ({', '.join(axes)})"
        if problem := outside(axes[name], value):
            return f"{name}: got {brief(shown(value))}, must be {problem}"
    return None


def outside(axis: Axis, value: Any) -> str | None:
    """Return the allowed values of an axis if a value is not one of them, None if it is."""
    if axis.kind == "choice":
        choices = ", ".join(map(shown, axis.choices))
        return None if isinstance(value, str) and value in axis.choices else f"one of {choices}"
    low, high = (int(axis.low), int(axis.high)) if axis.kind == "int" else (axis.low, axis.high)
    kind = "a whole number" if axis.kind == "int" else "a number"
    allowed = f"{kind} from {low} to {high}" + (f" in steps of {axis.step:g}" if axis.step not in (None, 1.0) else "")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return allowed
    if not low <= value <= high or (axis.kind == "int" and value != int(value)):
        return allowed
    steps = 0.0 if axis.step is None else (value - axis.low) / axis.step
    return allowed if abs(steps - round(steps)) > 1e-8 else None


def _difference(known: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Return the first setting in which a study differs from this search, with its value there; None if none does."""
    for key, value in ours.items():
        theirs = known.get(key, value)
        if key == "settings" and isinstance(theirs, Mapping):
            flat, other = _flat(completed(value)), _flat(completed(theirs))
            for name in sorted({*flat, *other}):
                if flat.get(name) != other.get(name):
                    return f"{name}={brief(shown(other.get(name)))} (here {brief(shown(flat.get(name)))})"
        elif theirs != value:
            return f"{key}={brief(shown(theirs))} (here {brief(shown(value))})"
    return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found
