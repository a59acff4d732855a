"""Which options of a group a value names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from runner.door.options import RECIPE, Conf, primary_file
from runner.door.yaml_files import document
from runner.errors import ConfigError, brief, unknown


def choice(conf: Conf, group: str, value: Any) -> list[str]:
    """Return the options that a group is given, in order; none for an empty list and for `recipe=null`.

    Raises ConfigError for an unknown option, several where one is asked for, and one given twice.
    """
    if value is None and group == RECIPE:
        return []
    if isinstance(value, dict):
        raise ConfigError(f"{group}: got {brief(str(value))}, must be an option")
    if value is None:
        raise ConfigError(f"{group}: got null, must be {'a list, [] for none' if conf.several(group) else 'an option'}")
    if isinstance(value, (list, tuple)) and not conf.several(group):
        listed = ",".join(map(str, value))
        raise ConfigError(f"{group}: got [{listed}], must be one option (to try each: -m {group}={listed})")
    words = [str(word) for word in (value if isinstance(value, (list, tuple)) else [value])]
    for index, word in enumerate(words):
        if word not in conf.files[group]:
            raise unknown(group, "option", word, conf.files[group])
        if word in words[:index]:
            raise ConfigError(f"{group}: given twice ('{word}')")
    return words


def default_choice(conf: Conf, group: str, recipe: Any) -> list[str]:
    """Return the options of a pick-many group that the command line does not set.

    Hydra reports the choices of the other groups, but not lists: the first `override` counts, else the default.
    """
    files = [("", conf.primary), *((RECIPE, name) for name in choice(conf, RECIPE, recipe))]
    overrides = (f"override {group}", f"override /{group}")
    found = itertools.chain(
        *(listed(conf, place, name, overrides) for place, name in files), listed(conf, "", conf.primary, (group,))
    )
    return choice(conf, group, next(found, []))


def listed(conf: Conf, group: str, name: str, keys: tuple[str, ...]) -> Iterator[Any]:
    """Yield the values of keys in a config's defaults list, then in those of the configs that it builds on."""
    entries = document(conf.files[group][name] if group else primary_file(conf, name)).get("defaults", [])
    yield from (value for entry in entries if isinstance(entry, dict) for key, value in entry.items() if key in keys)
    for entry in entries:
        if isinstance(entry, str) and entry != "_self_":
            yield from listed(conf, group, entry, keys)
