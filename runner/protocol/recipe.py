"""The recipe at the end of the protocol: one YAML file that trains with what the steps found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

# Words of a command that are no part of the experiment
_NOT_IN_RECIPE = ("task", "outputs", "name", "note", "plugins", "hydra", "resume", "sweep", "device", "recipe")


def recipe_yaml(
    config: Mapping[str, Any], words: Sequence[str], handoff: Mapping[str, Any], groups: frozenset[str], about: str
) -> str:
    """Return the recipe of a command: its options and values, with those of the handoff that it does not set itself.

    Args:
        config: The config that the words make.
        words: The overrides of the command line.
        handoff: The overrides that the steps found.
        groups: The names of all groups of options.
        about: Lines for the comment at the top.
    """
    keys = [key for key in map(_key_of, words) if key.split(".")[0].split("/")[0] not in _NOT_IN_RECIPE]
    chosen = {_key_of(word): word.partition("=")[2] for word in words if _key_of(word) in {*keys} & groups}
    values = {key: _value_at(config, key) for key in keys if key not in groups}
    options = {key: value for key, value in handoff.items() if key in groups and key not in chosen}
    values = {**{key: value for key, value in handoff.items() if key not in values and key not in groups}, **values}
    parent = next((word.partition("=")[2] for word in words if word.startswith("recipe=")), None)
    defaults: list[Any] = [] if parent is None else [parent]
    defaults += [{f"override /{key}": yaml.safe_load(option)} for key, option in chosen.items()]
    defaults += [{f"override /{key}": option} for key, option in options.items()]
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        place = tree
        for word in path:
            place = place.setdefault(word, {})
        place[last] = value
    body = {**({"defaults": defaults} if defaults else {}), **tree}
    comment = "".join(f"# {line}\n" for line in about.splitlines())
    return f"# @package _global_\n{comment}{yaml.safe_dump(body, sort_keys=False, allow_unicode=True)}"


def word_of(key: str, value: Any) -> str:
    """Return an override as the command line takes it: `optim.lr=0.1`, `scheduler=cosine`, `augment=[crop]`."""
    if isinstance(value, float):
        return f"{key}={value:.4g}"
    return f"{key}=[{','.join(map(str, value))}]" if isinstance(value, list) else f"{key}={value}"


def _key_of(word: str) -> str:
    """Return the key of an override."""
    return word.lstrip("+~").partition("=")[0]


def _value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; a part of a list is the number of its place."""
    found: Any = config
    for word in key.split("."):
        found = found[int(word)] if isinstance(found, list) else found[word]
    return found
