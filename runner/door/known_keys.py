"""The keys and options that a command line can set: which exist with what it chooses, and which elsewhere.

Only suggestions need this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from runner.door.check import check_knob
from runner.door.options import RECIPE, Conf, chosen_options, default_choice, option_values, template, templates
from runner.door.overrides import ParsedOverride, choice_texts, parse_override
from runner.errors import ConfigError, brief
from runner.schema import check
from runner.settings import SETTINGS

Chosen = Mapping[str, Sequence[str]]  # the options of each group

# Characters of an override that may be suggested
_LENGTH = 200


def chosen_by(conf: Conf, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the options of each group that overrides choose, as far as they are right."""
    typed = dict(word.lstrip("+").partition("=")[::2] for word in words)
    chosen: dict[str, list[str]] = {}
    for group in conf.defaults:
        with suppress(ConfigError):
            chosen[group] = default_choice(conf, group, typed.get(RECIPE) if group != RECIPE else None)
        with suppress(ConfigError):
            if group in typed:
                chosen[group] = chosen_options(conf, group, parse_override(f"{group}={typed[group]}").value)
    return chosen


def chosen_knobs(conf: Conf, chosen: Chosen) -> Iterator[tuple[str, str]]:
    """Yield (place in the config, knob) for the knobs of the chosen options."""
    for group in chosen:
        if group == RECIPE:
            continue
        with suppress(ConfigError):
            for place, _, knobs in _places(conf, group, chosen[group]):
                yield from ((place, knob) for knob in knobs if knob != "name")


def _places(conf: Conf, group: str, options: Sequence[str]) -> Iterator[tuple[str, tuple[str, str], Mapping[str, Any]]]:
    """Yield place in the config, component and knobs of options of a group."""
    if conf.several(group):
        for entry, knobs in templates(conf, group, list(options)).items():
            yield f"{group}.{entry}", (group, entry), knobs
    elif options:
        knobs = template(conf, group, options[0])
        yield group, (group, str(knobs.get("name"))), knobs


def owners_of(conf: Conf, group: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield group and option of each component of runner that has a knob of this name; `*` is any group."""
    for each, files in conf.files.items():
        for option, file in files.items() if group in (each, "*") and each not in (RECIPE, "task") else ():
            if name != "name" and conf.is_shipped(file):
                values = option_values(conf, each, option)
                if name in (values.get(option) or {} if conf.several(each) else values):
                    yield each, option


def fits(conf: Conf, chosen: Chosen, words: Sequence[str]) -> bool:
    """Return True if overrides are right: options and keys exist, values are of their types."""
    chosen = dict(chosen)
    try:
        for word in words:
            if len(word) > _LENGTH or word != brief(word, _LENGTH):
                return False
            given = parse_override(word)
            for each in _single_values(given):
                if given.key in conf.defaults:
                    chosen[given.key] = chosen_options(conf, given.key, each.value)
                elif given.key in SETTINGS:
                    check(given.key, each.value, SETTINGS[given.key])
                elif not _is_knob(conf, chosen, given.key, each.value):
                    return False
    except ConfigError:
        return False
    return True


def _single_values(given: ParsedOverride) -> list[ParsedOverride]:
    """Return an override for each of several values to try; of an interval its ends."""
    if not given.swept:
        return [given]
    if given.parsed.is_discrete_sweep():
        return [parse_override(f"{given.key}={text}") for text in choice_texts(given)]
    ends = re.findall(r"[\d.][\w.+-]*", given.text)
    return [parse_override(f"{given.key}={text}") for text in ends]


def _is_knob(conf: Conf, chosen: Chosen, key: str, value: Any) -> bool:
    """Return True if a key is a knob of a chosen option; raises ConfigError for a wrong value."""
    place, _, name = key.rpartition(".")
    group = key.partition(".")[0]
    for where, component, knobs in _places(conf, group, chosen[group]) if group in chosen else ():
        if where == place and name in knobs and name != "name":
            check_knob(key, value, knobs, component)
            return True
    return False
