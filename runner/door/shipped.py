"""Composition of options that come with runner: what Hydra composes of their files, in a tenth of its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.door.options import RECIPE, Conf, chosen_options, default_choice, read_yaml


def compose_shipped(conf: Conf, picked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]] | None:
    """Return the config that choices make, and the options of each group; None if Hydra must compose it.

    Hydra composes files that a user wrote, options that extend others, and recipes that configure Hydra.

    Args:
        conf: The config folders.
        picked: The choices of the command line, by group.

    """
    recipe = picked.get(RECIPE, conf.defaults[RECIPE])
    if conf.primary != "config" or not (recipe is None or _picks_options(conf, str(recipe))):
        return None
    chosen = {
        group: chosen_options(conf, group, picked[group]) if group in picked else default_choice(conf, group, recipe)
        for group in conf.defaults
    }
    config: dict[str, Any] = {}
    for group, options in chosen.items():
        for option in options if group != RECIPE else ():
            if not _is_plain(conf, group, option):
                return None
            config[group] = _merged(config.get(group), read_yaml(conf.files[group][option]))
    config = _merged(config, conf.settings)
    for option in chosen[RECIPE]:
        values = read_yaml(conf.files[RECIPE][option])
        config = _merged(config, {key: value for key, value in values.items() if key != "defaults"})
    return config, chosen


def _is_plain(conf: Conf, group: str, option: str) -> bool:
    """Return True if an option comes with runner and extends no other."""
    file = conf.files[group][option]
    return conf.is_shipped(file) and "defaults" not in read_yaml(file)


def _picks_options(conf: Conf, recipe: str) -> bool:
    """Return True if a recipe comes with runner, extends no other, and sets nothing of Hydra."""
    if not conf.is_shipped(conf.files[RECIPE][recipe]):
        return False
    values = read_yaml(conf.files[RECIPE][recipe])
    entries = [key for entry in values.get("defaults", []) for key in (entry if isinstance(entry, dict) else [entry])]
    return "hydra" not in values and set(entries) <= {f"override /{group}" for group in conf.defaults}


def _merged(below: Any, above: Any) -> Any:
    """Return two values merged, mappings key by key, as OmegaConf merges them."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
