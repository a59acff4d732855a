"""The combinations of a grid: zipped axes, knobs that only some options have, and combinations that are left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.door.knob_owners import has_knob
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.errors import ConfigError, brief, unknown

# Most trials of one sweep
MOST = 10_000
_ZIP, _EXCLUDE = "hydra.sweeper.zip", "hydra.sweeper.exclude"


@dataclass(frozen=True, kw_only=True)
class _GridSettings:
    """The checked settings of a grid; conf/hydra/sweeper/grid.yaml holds the defaults."""

    zip: tuple[tuple[str, ...], ...] = ()  # keys whose values go together
    exclude: tuple[Mapping[str, Any], ...] = ()  # key -> value; a combination with all of them is left out


def check_grid_settings(values: Mapping[str, Any], swept: Sequence[str]) -> _GridSettings:
    """Return the settings of a grid over some keys; raises ConfigError where they make no sense."""
    zipped, excluded = values.get("zip") or [], values.get("exclude") or []
    if not isinstance(zipped, list) or not all(isinstance(each, list) and len(each) > 1 for each in zipped):
        raise ConfigError(f"{_ZIP}: got {brief(str(zipped))}, must be lists of two keys or more: [[optim,optim.lr]]")
    if not isinstance(excluded, list) or not all(isinstance(each, dict) and each for each in excluded):
        raise ConfigError(f"{_EXCLUDE}: got {brief(str(excluded))}, must be a list of {{key: value, ...}}")
    keys = [str(key) for each in zipped for key in each]
    for where, key in [*((_ZIP, key) for key in keys), *((_EXCLUDE, str(key)) for each in excluded for key in each)]:
        if key not in swept:
            raise unknown(where, "key with several values", key, swept or ["none"])
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"{_ZIP}: got {twice} twice; a key has one partner")
    return _GridSettings(zip=tuple(tuple(map(str, each)) for each in zipped), exclude=tuple(excluded))


class Combinations:
    """The combinations of some values.

    Attributes:
        notes: Lines about knobs that only some of the tried options have, after the combinations have been made.
    """

    def __init__(self, conf: Conf, axes: Sequence[Sequence[ParsedOverride]], settings: _GridSettings) -> None:
        """Prepare; an axis is the overrides of one key, one or several."""
        self._conf, self._axes, self._settings = conf, axes, settings
        self._owners = {knob: owners for knob, owners in map(self._owners_of, axes) if owners is not None}
        self.notes = [
            f"{knob}: applies to {self._group(knob)}={','.join(owners)} only, the other trials are without it"
            for knob, owners in self._owners.items()
        ]

    def all(self) -> Iterator[list[ParsedOverride]]:
        """Yield the overrides of every trial, the last axis fastest, as Hydra's own sweeper does."""
        seen, left_out = set(), [0] * len(self._settings.exclude)
        for given in itertools.product(*_check_count(self._blocks())):
            places = {each.key: each for block in given for each in block}
            # In the order of the command line
            trial = [places[axis[0].key] for axis in self._axes]
            values = {each.key: each.value for each in trial}
            whole, trial = len(trial), [each for each in trial if self._applies(each, values)]
            # Trials that are the same for another reason are an error
            if (words := tuple(each.word for each in trial)) in seen and len(trial) < whole:
                continue
            seen.add(words)
            values = {each.key: each.value for each in trial}
            matches = [_matches(values, each) for each in self._settings.exclude]
            left_out = [count + match for count, match in zip(left_out, matches, strict=True)]
            if not any(matches):
                yield trial
        for count, each in zip(left_out, self._settings.exclude, strict=True):
            if not count:
                raise ConfigError(f"{_EXCLUDE}: {brief(str(each))} is not a combination of this grid")
        if sum(left_out) and len(seen) <= sum(left_out):
            raise ConfigError(f"{_EXCLUDE}: leaves out every combination")

    def _blocks(self) -> list[list[tuple[ParsedOverride, ...]]]:
        """Return the values that are combined: those of one axis, or of zipped axes together."""
        partners = {key: keys for keys in self._settings.zip for key in keys}
        by_key = {axis[0].key: axis for axis in self._axes}
        blocks = []
        for key in by_key:
            keys = partners.get(key, (key,))
            sizes = {each: len(by_key[each]) for each in keys}
            if len(set(sizes.values())) > 1:
                words = ", ".join(f"{each} has {size}" for each, size in sizes.items())
                raise ConfigError(f"{_ZIP}: {words} values; zipped keys have the same number")
            if key == keys[0]:
                blocks.append(list(zip(*(by_key[each] for each in keys), strict=True)))
        return blocks

    def _owners_of(self, axis: Sequence[ParsedOverride]) -> tuple[str, list[str] | None]:
        """Return the options with a knob, None if the key is not one that only some of the tried options have."""
        key = axis[0].key
        group, _, knob = key.partition(".")
        options = next((each for each in self._axes if each[0].key == group), ())
        if not knob or group not in self._conf.defaults or len(options) < 2:
            return key, None
        owners = [each.text for each in options if has_knob(self._conf, group, each.text, knob)]
        # A knob that no option has is an error, which the composition of the trials names
        return key, owners if 0 < len(owners) < len(options) else None

    def _applies(self, each: ParsedOverride, values: Mapping[str, Any]) -> bool:
        if each.key not in self._owners:
            return True
        group = self._group(each.key)
        option = next(one for axis in self._axes for one in axis if one.key == group and one.value == values[group])
        return option.text in self._owners[each.key]

    def _group(self, knob: str) -> str:
        return knob.partition(".")[0]


def _check_count(blocks: list[list[tuple[ParsedOverride, ...]]]) -> list[list[tuple[ParsedOverride, ...]]]:
    """Return blocks of values; raises ConfigError if they have too many combinations."""
    count = math.prod(map(len, blocks))
    if count > MOST:
        key = next(block[0][0].key for block in blocks if len(block) > 1)
        raise ConfigError(f"{key}: the sweep has {count} trials or more, must be at most {MOST}")
    return blocks


def _matches(values: Mapping[str, Any], excluded: Mapping[str, Any]) -> bool:
    """Return True if a combination has all values of an entry; 1 and 1.0 are the same, 1 and true are not."""
    return all(
        key in values and values[key] == value and isinstance(values[key], bool) == isinstance(value, bool)
        for key, value in excluded.items()
    )
