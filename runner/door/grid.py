"""The grid of a sweep: its axes, and the checked config of every combination."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

from runner.door.combinations import MOST, Combinations, check_grid_settings
from runner.door.compose import Parts
from runner.door.naming import trial_name
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, check_allowed, choice_texts, parse_override
from runner.door.variants import Composer, Trial
from runner.errors import ConfigError, unknown
from runner.search.decimals import count_in_range, nth_in_range


@dataclass(frozen=True)
class Axes:
    """The overrides of a sweep; those of the command line replace those in the YAML's `hydra.sweeper.params`."""

    given: list[ParsedOverride]  # of the command line, Hydra's own included
    searched: list[ParsedOverride]  # of the YAML

    @property
    def all(self) -> list[ParsedOverride]:
        """Return one override per key, in Hydra's order."""
        ours = [each for each in self.given if not each.sets_hydra]
        return list({each.key: each for each in [*self.searched, *ours]}.values())

    @property
    def swept(self) -> list[str]:
        """Return the keys that differ between trials."""
        return [each.key for each in self.all if each.swept]


def swept_axes(conf: Conf, parts: Parts, given: list[ParsedOverride]) -> Axes:
    """Return the axes of a command line and of the `hydra.sweeper.params` of its recipe."""
    searched = [override_in_yaml(conf, key, text, example="0.1,0.01") for key, text in parts.searched.items()]
    return Axes([expand_glob(conf, each) for each in given], searched)


def expand_glob(conf: Conf, given: ParsedOverride) -> ParsedOverride:
    """Return a sweep with `glob(...)` written out as the options that it matches."""
    pattern = given.value
    if not isinstance(pattern, Glob):
        return given
    if given.key not in conf.defaults:
        raise ConfigError(f"{given.key}: got {given.text}, but only options of a group can be globbed")
    matches = pattern.filter(sorted(conf.files[given.key]))
    if not matches:
        raise unknown(given.key, "option", given.text, conf.files[given.key])
    return parse_override(f"{given.key}=choice({','.join(matches)})")


def override_in_yaml(conf: Conf, key: str, text: object, *, example: str) -> ParsedOverride:
    """Return an entry of `hydra.sweeper.params` as an override; `example` is a valid value of `optim.lr`."""
    if not isinstance(text, (str, int, float)):
        raise ConfigError(f"hydra.sweeper.params.{key}: must be text, as in 'optim.lr: {example}' in a recipe")
    each = parse_override(f"{key}={str(text).lower() if isinstance(text, bool) else text}")
    if each.key == "plugins":
        raise ConfigError("plugins: allowed on the command line only, because a file must not import code")
    check_allowed(conf, each)
    return expand_glob(conf, each)


def check_trials(conf: Conf, axes: Axes, sweeper: Mapping[str, Any]) -> tuple[dict[str, Trial], list[str]]:
    """Return the trials by the names of their folders, and notes; ConfigError if one is wrong or two are the same.

    `sweeper` holds the settings of the sweeper, `hydra.sweeper`.
    """
    combinations = grid_of(conf, axes, sweeper)
    composer = Composer(conf, [each for each in axes.given if each.sets_hydra])
    found: dict[str, Trial] = {}
    swept = set(axes.swept)
    for given in combinations.all():
        named = tuple((each.key, each.value) for each in given if each.key in swept or not swept)
        trial = replace(composer.trial(given), named=named)
        name = trial_name(named, trial.config)
        if name in found:
            same = found[name].config == trial.config
            says = "are the same" if same else "differ only in what their folders' names leave out"
            raise ConfigError(f"{name.rpartition('-')[0]}: two trials of this sweep {says}")
        found[name] = trial
    return found, combinations.notes


def grid_of(conf: Conf, axes: Axes, sweeper: Mapping[str, Any]) -> Combinations:
    """Return the combinations of the values of each key; nothing is listed of a grid that is too large."""
    settings = check_grid_settings(sweeper, axes.swept)
    counts = [min(_count(each), MOST + 1) for each in axes.all]
    if (count := max(counts, default=1) if settings.zip else math.prod(counts)) > MOST:
        raise ConfigError(f"{axes.swept[0]}: the sweep has {count} trials or more, must be at most {MOST}")
    parsed = [[parse_override(f"{each.key}={text}") for text in _texts(each)] for each in axes.all]
    return Combinations(conf, parsed, settings)


def _count(each: ParsedOverride) -> int:
    """Return how many values an override has, one or several; nothing is listed, because a range can be long."""
    if not each.swept:
        return 1
    if isinstance(each.value, IntervalSweep):
        raise ConfigError(
            f"{each.key}: got {each.text}, but a grid tries listed values only; "
            f"list them ({each.key}=0.1,0.01) or choose a sweeper that searches (hydra/sweeper=...)"
        )
    count = range_count(each) if isinstance(each.value, RangeSweep) else len(list(each.parsed.sweep_iterator()))
    if not count:
        raise ConfigError(f"{each.key}: got {each.text}, which has no values")
    return count


def range_count(each: ParsedOverride) -> int:
    """Return how many values a range has; raises ConfigError for a step of 0 and for infinite ends."""
    value = each.value
    try:
        return count_in_range(value.start, value.stop, value.step)
    except ValueError as error:
        raise ConfigError(f"{each.key}: got {each.text}, which is not a valid range ({error})") from error


def _texts(each: ParsedOverride) -> list[str]:
    """Return the values of an override, one or several, as texts."""
    if not each.swept:
        return [each.text]
    value = each.value
    if not isinstance(value, RangeSweep):
        return choice_texts(each)
    # Hydra adds steps up in binary
    texts = [str(nth_in_range(value.start or 0, value.step, index)) for index in range(range_count(each))]
    if value.shuffle:
        random.shuffle(texts)
    return texts
