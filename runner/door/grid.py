"""The grid of a sweep: its axes, and the checked config of every combination."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runner.door.also import further_grids
from runner.door.combinations import MOST, Combinations, check_grid_settings
from runner.door.compose import Parts, to_plain
from runner.door.listed_values import expand_glob, override_in_yaml, value_count, values_of
from runner.door.naming import trial_name
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.door.variants import Composer, Trial
from runner.errors import ConfigError


@dataclass(frozen=True)
class Axes:
    """The overrides of a sweep; those of the command line replace those in the YAML's `hydra.sweeper.params`."""

    given: list[ParsedOverride]  # of the command line, Hydra's own included
    searched: list[ParsedOverride]  # of the YAML
    also: tuple[dict[str, list[ParsedOverride]], ...] = ()  # of further grids: the values of keys that they replace

    @property
    def all(self) -> list[ParsedOverride]:
        """Return one override per key, in Hydra's order."""
        ours = [each for each in self.given if not each.sets_hydra]
        return list({each.key: each for each in [*self.searched, *ours]}.values())

    @property
    def swept(self) -> list[str]:
        """Return the keys that differ between trials."""
        swept = [each.key for each in self.all if each.swept]
        return list(dict.fromkeys([*swept, *(key for grid in self.also for key in grid)]))


def swept_axes(conf: Conf, parts: Parts, given: list[ParsedOverride]) -> Axes:
    """Return the axes of a command line and of the `hydra.sweeper.params` of its recipe."""
    searched = [override_in_yaml(conf, key, text, example="0.1,0.01") for key, text in parts.searched.items()]
    also = further_grids(conf, to_plain(parts.hydra.sweeper).get("also") or [])
    return Axes([expand_glob(conf, each) for each in given], searched, also)


def check_trials(conf: Conf, axes: Axes, sweeper: Mapping[str, Any]) -> tuple[dict[str, Trial], list[str]]:
    """Return the trials by the names of their folders, and notes; ConfigError if one is wrong or two are the same.

    `sweeper` holds the settings of the sweeper, `hydra.sweeper`.
    """
    combinations = grid_of(conf, axes, sweeper)
    composer = Composer(conf, [each for each in axes.given if each.sets_hydra])
    found: dict[str, Trial] = {}
    swept = set(axes.swept)
    earlier: dict[int, set[str]] = {}
    for number, given in combinations.by_grid():
        known = earlier.setdefault(number, set(found))
        named = tuple((each.key, each.value) for each in given if each.key in swept or not swept)
        trial = replace(composer.trial(given), named=named)
        name = trial_name(named, trial.config)
        if name in known and found[name].config == trial.config:
            # Two grids have it, written in another way
            continue
        if name in found:
            same = found[name].config == trial.config
            says = "are the same" if same else "differ only in what their folders' names leave out"
            raise ConfigError(f"{name.rpartition('-')[0]}: two trials of this sweep {says}")
        found[name] = trial
    return found, combinations.notes


def grid_of(conf: Conf, axes: Axes, sweeper: Mapping[str, Any]) -> Combinations:
    """Return the combinations of the values of each key; nothing is listed of a grid that is too large."""
    settings = check_grid_settings(sweeper, axes.swept)
    counts = [min(value_count(each), MOST + 1) for each in axes.all]
    if (count := max(counts, default=1) if settings.zip else math.prod(counts)) > MOST:
        raise ConfigError(f"{axes.swept[0]}: the sweep has {count} trials or more, must be at most {MOST}")
    first = {each.key: values_of(each) for each in axes.all}
    return Combinations(conf, [list(grid.values()) for grid in (first, *({**first, **m} for m in axes.also))], settings)
