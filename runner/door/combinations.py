"""The combinations of grids: zipped axes, knobs that only some options have, and combinations that are left out."""

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
    """The combinations of the values of one grid, or of several ones after another.

    Attributes:
        notes: Lines about knobs that only some of the tried options have, after the combinations have been made.
    """

    def __init__(
        self, conf: Conf, grids: Sequence[Sequence[Sequence[ParsedOverride]]], settings: _GridSettings
    ) -> None:
        """Prepare; a grid is a list of axes, and an axis is the overrides of one key, one or several."""
        self._conf, self._grids, self._settings = conf, grids, settings
        axes = {axis[0].key: axis for grid in grids for axis in grid}
        found = {key: self._owners_of(key) for key in axes}
        self._owners = {key: owners for key, owners in found.items() if owners is not None}
        self.notes = [
            f"{knob}: applies to {_group(knob)}={','.join(owners)} only, the other trials are without it"
            for knob, owners in self._owners.items()
        ]

    def all(self) -> Iterator[list[ParsedOverride]]:
        """Yield the overrides of every trial, those that two grids have once."""
        return (trial for _, trial in self.by_grid())

    def by_grid(self) -> Iterator[tuple[int, list[ParsedOverride]]]:
        """Yield the number of the grid and the overrides of every trial; the last axis is the fastest, as in Hydra."""
        earlier: set[frozenset[str]] = set()
        counts, left_out = [0, 0], [0] * len(self._settings.exclude)
        blocks = _check_count([self._blocks(axes) for axes in self._grids])
        for number, axes in enumerate(self._grids):
            now = set()
            for trial in self._trials(axes, blocks[number]):
                if (words := frozenset(each.word for each in trial)) in earlier:
                    continue
                now.add(words)
                values = {each.key: each.value for each in trial}
                matches = [_matches(values, each) for each in self._settings.exclude]
                left_out = [count + match for count, match in zip(left_out, matches, strict=True)]
                counts = [counts[0] + 1, counts[1] + any(matches)]
                if not any(matches):
                    yield number, trial
            earlier |= now
        for count, each in zip(left_out, self._settings.exclude, strict=True):
            if not count:
                raise ConfigError(f"{_EXCLUDE}: {brief(str(each))} is not a combination of this grid")
        if counts[1] and counts[0] == counts[1]:
            raise ConfigError(f"{_EXCLUDE}: leaves out every combination")

    def _trials(
        self, axes: Sequence[Sequence[ParsedOverride]], blocks: list[list[tuple[ParsedOverride, ...]]]
    ) -> Iterator[list[ParsedOverride]]:
        """Yield the overrides of the trials of one grid, without knobs that the option of a trial does not have."""
        seen = set()
        for given in itertools.product(*blocks):
            places = {each.key: each for block in given for each in block}
            # In the order of the command line
            trial = [places[axis[0].key] for axis in axes]
            options = {each.key: each.text for each in trial}
            whole, trial = len(trial), [each for each in trial if self._applies(each, options)]
            # Trials that are the same for another reason are an error
            if (words := tuple(each.word for each in trial)) in seen and len(trial) < whole:
                continue
            seen.add(words)
            yield trial

    def _blocks(self, axes: Sequence[Sequence[ParsedOverride]]) -> list[list[tuple[ParsedOverride, ...]]]:
        """Return the values that are combined: those of one axis, or of zipped axes together."""
        partners = {key: keys for keys in self._settings.zip for key in keys}
        by_key = {axis[0].key: axis for axis in axes}
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

    def _owners_of(self, key: str) -> list[str] | None:
        """Return the options with a knob, None if the key is not one that only some of the tried options have."""
        group, _, knob = key.partition(".")
        axes = [axis for grid in self._grids for axis in grid if axis[0].key == group]
        options = dict.fromkeys(each.text for axis in axes for each in axis)
        if not knob or group not in self._conf.defaults or len(options) < 2:
            return None
        owners = [option for option in options if has_knob(self._conf, group, option, knob)]
        # A knob that no option has is an error, which the composition of the trials names
        return owners if 0 < len(owners) < len(options) else None

    def _applies(self, each: ParsedOverride, options: Mapping[str, str]) -> bool:
        owners = self._owners.get(each.key)
        # A grid without the group tries the option of the command line, which the composition checks
        return owners is None or options.get(_group(each.key), owners[0]) in owners


def _group(knob: str) -> str:
    return knob.partition(".")[0]


def _check_count(grids: list[list[list[tuple[ParsedOverride, ...]]]]) -> list[list[list[tuple[ParsedOverride, ...]]]]:
    """Return blocks of values; raises ConfigError if they have too many combinations."""
    count = sum(math.prod(map(len, blocks)) for blocks in grids)
    if count > MOST:
        key = next(block[0][0].key for blocks in grids for block in blocks if len(block) > 1)
        raise ConfigError(f"{key}: the sweep has {count} trials or more, must be at most {MOST}")
    return grids


def _matches(values: Mapping[str, Any], excluded: Mapping[str, Any]) -> bool:
    """Return True if a combination has all values of an entry; 1 and 1.0 are the same, 1 and true are not."""
    return all(
        key in values and values[key] == value and isinstance(values[key], bool) == isinstance(value, bool)
        for key, value in excluded.items()
    )
