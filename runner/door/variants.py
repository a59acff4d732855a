"""Configs that differ in a few places: their common part is composed once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from runner.door.check import check_config
from runner.door.check_files import check_option_file
from runner.door.compose import Parts, compose_parts, compose_run, picks_option, quote, resolve
from runner.door.metrics import with_monitored_metric
from runner.door.options import RECIPE, Conf, chosen_options, option_values
from runner.door.overrides import ParsedOverride, read_overrides
from runner.door.sizes import sizes_as_pairs
from runner.door.weights_identity import identified_anew, with_weights_identified
from runner.errors import ConfigError, RunnerError
from runner.expand_user import as_in_config, expand_paths
from runner.numerics import renamed


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep: its config, checked, and the overrides that make it."""

    config: dict[str, Any]
    words: tuple[str, ...]
    choices: Mapping[str, Any]  # the option of each group
    named: tuple[tuple[str, Any], ...] = ()  # the keys and values that its folder's name has


class Composer:
    """Makes the configs of trials, composed once for each set of choices; requires `hydra_opened`."""

    def __init__(self, conf: Conf, hydra: Sequence[ParsedOverride] = ()) -> None:
        self._conf, self._hydra = conf, list(hydra)
        self._composed: dict[tuple[str, ...], _Variants] = {}

    def trial(self, given: Sequence[ParsedOverride]) -> Trial:
        """Return the trial that overrides make, checked; raises ConfigError if it is wrong."""
        choices = [each for each in given if picks_option(self._conf, each)]
        words = tuple(each.word for each in choices)
        if words not in self._composed:
            self._composed[words] = _Variants(self._conf, compose_parts(self._conf, [*self._hydra, *choices]))
        variants = self._composed[words]
        config = with_weights_identified(variants.config(given), apart=True)
        return Trial(config, tuple(each.word for each in given), variants.choices)


class _Variants:
    """The checked configs of one set of choices: those of `compose_run`, in a tenth of the time.

    Where overrides set single values that no interpolation refers to, a config is a copy of another with these values.
    """

    def __init__(self, conf: Conf, parts: Parts) -> None:
        self._conf, self._parts = conf, parts
        self._refers = "${" in str(OmegaConf.to_container(parts.config, resolve=False))
        self._first: dict[tuple[str, ...], dict[str, Any]] = {}
        self.choices = parts.choices

    def config(self, given: Sequence[ParsedOverride]) -> dict[str, Any]:
        """Return the config that overrides make, checked; raises ConfigError if it is wrong."""
        leaves = [each for each in given if self._is_leaf(each)]
        like = tuple(each.key if each in leaves else each.word for each in given)
        if self._refers or like not in self._first or any("${" in each.text for each in given):
            config = self._first[like] = compose_run(self._conf, self._parts, given)
            return config
        config = self._first[like]
        try:
            for each in leaves:
                config = _with_value(config, each.key.split("."), as_in_config(each.key, each.value))
            check_config(self._conf, *with_monitored_metric(self._conf, config, self._parts.chosen))
        except (RunnerError, TypeError, KeyError):
            # The value is wrong or its key is not a leaf; the full check names the error
            return compose_run(self._conf, self._parts, given)
        return config

    def _is_leaf(self, given: ParsedOverride) -> bool:
        plain = given.value is None or isinstance(given.value, (bool, int, float, str))
        # The monitored metric is an entry of the config
        is_value = plain and given.key != "monitor" and not given.sets_hydra
        return is_value and not picks_option(self._conf, given)


def _with_value(config: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a config with another value in one place; KeyError or TypeError if there is none, or more than a value."""
    name, *rest = path
    if rest:
        return {**config, name: _with_value(config[name], rest, value)}
    if isinstance(config[name], (dict, list)):
        raise TypeError(name)
    return {**config, name: value}


def vary(
    conf: Conf,
    config: Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any],
    recipe: str | None = None,
) -> dict[str, Any]:
    """Return a checked config with overrides applied, options of groups first; see `runner.tasks.job.Vary`.

    `recipe` is the one that the config was made with.
    """
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={hydra_text(value)}" for key, value in overrides.items()]
    given = read_overrides(conf, overrides)
    for each in given:
        if each.sets_hydra or each.key == RECIPE:
            raise ConfigError(f"{each.key}: cannot be set for a variant of a config")
        if each.swept or "${" in each.text:
            raise ConfigError(f"{each.key}: got {each.text}, must be one plain value")
    varied = dict(config)
    chosen = {group: _options_in(conf, group, varied[group]) for group in conf.defaults if group in varied}
    chosen[RECIPE] = [recipe] if recipe else []
    for each in sorted(given, key=lambda each: not picks_option(conf, each)):
        if picks_option(conf, each):
            chosen[each.key] = chosen_options(conf, each.key, each.value)
            varied[each.key] = _option_values(conf, varied, each.key, chosen[each.key])
        else:
            varied = _merge_at(varied, each.key.split("."), each.value, each.key)
        varied = renamed(varied)
    expand_paths(varied)
    complete, options = with_monitored_metric(conf, sizes_as_pairs(conf, varied, chosen), chosen)
    check_config(conf, complete, options)
    return identified_anew(complete, config)


def _option_values(conf: Conf, config: Mapping[str, Any], group: str, options: Sequence[str]) -> dict[str, Any]:
    """Return what options of a group set, their interpolations resolved in a config."""
    values: dict[str, Any] = {}
    for option in options:
        check_option_file(conf, group, option)
        values |= copy.deepcopy(option_values(conf, group, option))
    return resolve(OmegaConf.create({**config, group: values})[group]) if "${" in str(values) else values


def _options_in(conf: Conf, group: str, values: Mapping[str, Any]) -> list[str]:
    """Return the options of a group that a config holds: those whose files set its entries, or its name."""
    entries = list(values) if conf.several(group) else [str(values.get("name"))]
    return [next((o for o in [entry, *conf.files[group]] if _sets(conf, group, o, entry)), entry) for entry in entries]


def _sets(conf: Conf, group: str, option: str, entry: str) -> bool:
    """Return True if an option of a group sets an entry, or the component of that name."""
    if option not in conf.files[group]:
        return False
    values = option_values(conf, group, option)
    return entry in values if conf.several(group) else values.get("name") == entry


def _merge_at(values: Any, path: Sequence[str], new: Any, key: str) -> Any:
    """Return nested values with a new one in one place; mappings are merged, as on the command line."""
    if not path:
        return {**values, **new} if isinstance(values, dict) and isinstance(new, dict) else new
    name, *rest = path
    if isinstance(values, list) and name.isdigit() and int(name) < len(values):
        return [_merge_at(each, rest, new, key) if i == int(name) else each for i, each in enumerate(values)]
    if not isinstance(values, dict):
        raise ConfigError(f"{key}: cannot be set there")
    return {**values, name: _merge_at(values.get(name), rest, new, key)}


def hydra_text(value: Any) -> str:
    """Return a plain value in Hydra's grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{quote(str(key))}:{hydra_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_text, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quote(value) if isinstance(value, str) else repr(value)
