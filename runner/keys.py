"""Roles of all config keys, read from their annotations (`runner.roles`).

Configuration hashes, session groups, comparisons, `~` expansion and what may change on resume derive from them here.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.annotations import marks, marks_of_kind
from runner.batch_sizes import undivided
from runner.key_history import ALIASES
from runner.roles import NO_MARKS, Aspect, Marks, Role, marks_in
from runner.settings import GROUPS, SETTINGS, UNNAMED

_Config = Mapping[str, Any]
# Hex digits of a SHA-256 that tell the weights of two experiments apart
_DIGITS = 12

_SETTINGS = {key: marks_in(annotation) for key, annotation in SETTINGS.items()}
_UNNAMED = Marks(role=Role.OBSERVATION, unnamed=True, unswept=True)


def key_marks(key: str) -> Marks:
    """Return the marks of a key as written on the command line, for any option of its group."""
    key = ALIASES.get(key, key)
    if key in _SETTINGS:
        return _SETTINGS[key]
    group, _, knob = key.partition(".")
    if group in UNNAMED:
        return _UNNAMED
    # The choice of an option has no marks. A knob has the same marks in all options of a group.
    if not knob:
        return NO_MARKS
    return marks_of_kind(group).get(knob.rpartition(".")[2], NO_MARKS)


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the last words of each key, as many as no other key ends with: `lr`, or `optim.lr` and `scheduler.lr`."""
    keys = list(dict.fromkeys(keys))
    short = {}
    for key in keys:
        words = key.split(".")
        ends = (".".join(words[-count:]) for count in range(1, len(words)))
        others = [f".{other}" for other in keys if other != key]
        short[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return short


def settings_with(mark: Role | Aspect) -> tuple[str, ...]:
    """Return the settings that have a role or an aspect, in the order of `conf/config.yaml`."""
    return tuple(key for key, found in _SETTINGS.items() if found.role == mark or mark in found.aspects)


def read_by_some_tasks() -> dict[str, tuple[str, ...]]:
    """Return the settings that only some tasks read, with these tasks."""
    return {key: found.readers for key, found in _SETTINGS.items() if found.readers}


def experiment(config: _Config) -> dict[str, Any]:
    """Return the part of a config that changes the numbers, without the seed.

    Runs with equal parts are repetitions of one configuration.
    """
    found = {}
    for key, value in undivided(config).items():
        if key in _SETTINGS:
            if _SETTINGS[key].role is Role.EXPERIMENT:
                found[key] = value
        elif GROUPS.get(key, Role.EXPERIMENT) is Role.EXPERIMENT:
            found[key] = _experiment_of_group(key, value, _plugins_of(config))
    # The tensors count, wherever they lie; a run of an older version knows only their path
    if digest := found.pop("init_sha256", None):
        found["init_from"] = str(digest)[:_DIGITS]
    # Says something of a run that extends another one only
    if not found.get("extend_restart"):
        found.pop("extend_restart", None)
    # Which step is the best depends on the knobs of the metric that it is chosen by
    if knobs := _knobs_of_monitored(config):
        found["metric"] = knobs
    return found


def _knobs_of_monitored(config: _Config) -> dict[str, Any]:
    """Return the entry of the monitored metric's component if it has knobs, empty if it has none."""
    chosen, name = config.get("metric"), str(config.get("monitor")).partition("/")[2]
    return {name: chosen[name]} if isinstance(chosen, Mapping) and chosen.get(name) else {}


def hyperparameters(config: _Config) -> dict[str, Any]:
    """Return the part of a config that distinguishes training runs: `experiment` without the task."""
    return {key: value for key, value in experiment(config).items() if key != "task"}


def named_origins(config: _Config) -> dict[str, str]:
    """Return what the user named where `hyperparameters` has a hash: the weights and the run that a run begins with."""
    found = {}
    if config.get("init_sha256"):
        found["init_from"] = str(config["init_from"])
    if origin := config.get("extended_from"):
        found["extended_from"] = f"{config['extend']}@{str(origin).rpartition('@')[2]}"
    return found


def marked_keys(config: dict[str, Any], among: Iterable[str]) -> Iterator[tuple[dict[str, Any], str, str, Marks]]:
    """Yield (mapping with the value, name in it, dotted key, marks) of the marked keys at or below some keys."""
    for key in among:
        if key in _SETTINGS:
            yield config, key, key, _SETTINGS[key]
            continue
        for place, name, knobs in _components(key, config[key]):
            for knob, found in marks(key, name, _plugins_of(config)).items():
                if knob in knobs:
                    yield knobs, knob, f"{place}.{knob}", found


def knob_marks(group: str, values: _Config, config: _Config) -> Mapping[str, Marks]:
    """Return the marked knobs of the component that a pick-one group of a config chooses."""
    return marks(group, str(values.get("name")), _plugins_of(config))


def _plugins_of(config: _Config) -> tuple[str, ...]:
    """Return the modules of a user's components that a config names."""
    listed = config.get("plugins")
    return tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, (list, tuple)) else ()


def _experiment_of_group(group: str, value: Any, plugins: tuple[str, ...]) -> Any:
    """Return the knobs of a group's components that change the numbers."""
    if not isinstance(value, Mapping):
        return value
    if "name" in value:
        return _experiment_of_component(group, value["name"], value, plugins)
    return {name: _experiment_of_component(group, name, knobs, plugins) for name, knobs in value.items()}


def _experiment_of_component(group: str, name: Any, knobs: Any, plugins: tuple[str, ...]) -> Any:
    if not isinstance(knobs, Mapping) or not isinstance(name, str):
        return knobs
    found = marks(group, name, plugins)
    kept = {knob: found.get(knob, NO_MARKS) for knob in knobs}
    return {knob: kept[knob].experiment(value) for knob, value in knobs.items() if kept[knob].role is Role.EXPERIMENT}


def _components(group: str, value: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (key, name, knobs) of the components that a group of a config chooses."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        yield group, value["name"], value
    elif isinstance(value, dict):
        yield from ((f"{group}.{name}", str(name), knobs) for name, knobs in value.items() if isinstance(knobs, dict))
