"""Further grids of a sweep, `hydra.sweeper.also`: each takes the command's values, but for the keys that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.door.combinations import MOST
from runner.door.knob_owners import has_knob
from runner.door.listed_values import override_in_yaml, value_count, values_of
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.errors import ConfigError, brief

_KEY = "hydra.sweeper.also"
_EXAMPLE = "{optim: sgd, optim.lr: [0.1, 0.3]}"


def further_grids(conf: Conf, values: Any) -> tuple[dict[str, list[ParsedOverride]], ...]:
    """Return the values of each key that a further grid names, one or several; raises ConfigError for a wrong one."""
    if not isinstance(values, list) or not all(isinstance(each, Mapping) and each for each in values):
        raise ConfigError(f"{_KEY}: got {brief(str(values))}, must be a list of grids such as {_EXAMPLE}")
    grids = tuple({str(key): _values(conf, str(key), value) for key, value in each.items()} for each in values)
    for grid in grids:
        _check_knobs(conf, grid)
    return grids


def _check_knobs(conf: Conf, grid: Mapping[str, list[ParsedOverride]]) -> None:
    """Raise ConfigError if no option that a grid names has a knob that it names, which would be left out."""
    for key in grid:
        group, _, knob = key.partition(".")
        if knob and group in conf.defaults and group in grid:
            options = [each.text for each in grid[group]]
            if not any(has_knob(conf, group, option, knob) for option in options):
                raise ConfigError(f"{_KEY}: {key}: {group}={','.join(options)} has no such knob")


def _values(conf: Conf, key: str, value: Any) -> list[ParsedOverride]:
    """Return the values of one key: those of a list, or those of a text as on the command line."""
    if isinstance(value, list) and not value:
        raise ConfigError(f"{_KEY}: {key}: got [], which has no values; an empty list as a value is [[]]")
    found = []
    for text in map(_word, value) if isinstance(value, list) else [_word(value, nested=False)]:
        each = override_in_yaml(conf, key, text, example="0.1,0.01", where=_KEY)
        if each.sets_hydra:
            raise ConfigError(f"{_KEY}: {key}: is of the whole sweep; give it on the command line")
        if value_count(each) > MOST:
            raise ConfigError(f"{key}: the sweep has {value_count(each)} trials or more, must be at most {MOST}")
        found += values_of(each)
    return found


def _word(value: Any, *, nested: bool = True) -> object:
    """Return a value as text of Hydra's grammar; a list or a mapping is one value where it is `nested` in a list."""
    if value is None:
        return "null"
    if isinstance(value, list) and nested:
        return f"[{','.join(str(_word(each)) for each in value)}]"
    if isinstance(value, Mapping) and nested:
        return f"{{{','.join(f'{key}:{_word(each)}' for key, each in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else value
