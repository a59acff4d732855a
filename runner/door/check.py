"""The one check over a whole composed config: groups, keys and types, held against the YAML files; no torch.

Ranges of knobs, and whatever needs the data or the model, are assembly's to check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runner.door.options import RECIPE, Conf, template, templates
from runner.errors import KEY, ConfigError, brief, unknown
from runner.schema import PLAIN, SETTINGS, Duration, check, wrong

LONGEST = 10_000  # characters of a text, a key or a whole override
REFERENCE = re.compile(r"(?<!\\)(\\\\)*\\\$\{|\$\{[\w.\[\]-]+\}")  # \${ is no interpolation
MISSING = "???"
LARGEST = 2**63 - 1  # what torch and numpy take for a whole number
DURATION = Duration.__metadata__[0].expression  # type: ignore[attr-defined]


def check_config(conf: Conf, config: Mapping[str, Any], chosen: Mapping[str, list[str]]) -> None:
    """Raise ConfigError unless every key of a resolved config is known and every value is of its type.

    `chosen` holds the options of each group.
    """
    plain(config)
    for key, value in config.items():
        if key in SETTINGS:
            check(key, value, SETTINGS[key])
        elif key in conf.defaults:
            check_group(conf, key, value, chosen[key])
        else:
            raise unknown(str(key), "key", str(key), [*conf.defaults, *SETTINGS])
    for key in [*conf.defaults, *SETTINGS]:
        if key not in config and key != RECIPE:
            raise ConfigError(f"{key}: missing")


def plain(content: Any, key: str = "") -> None:
    """Refuse keys that start with an underscore (Hydra calls and imports what they name), and values no part can take.

    `key` is where the content stands, with a dot at its end.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            plain_value(name, f"{key}{name}")
            plain_key(str(name), f"{key}{name}")
            plain(value, f"{key}{name}.")
    elif isinstance(content, (list, tuple)):
        for item in content:
            plain(item, key)
    else:
        plain_value(content, key.removesuffix("."))


def plain_key(name: str, key: str) -> None:
    """Refuse one word of a key if it is more than a name."""
    if name.startswith(("_", "$")):
        raise ConfigError(f"{brief(key, KEY)}: a key must not start with '{name[0]}' (a config can call nothing)")


def plain_value(value: Any, key: str) -> None:
    """Refuse a text that no file and no path can hold, and a number beyond 64 bits."""
    if isinstance(value, str) and not storable(value):
        raise wrong(key, value, "text that UTF-8 can write, without NUL")
    if isinstance(value, str) and len(value) > LONGEST:
        raise wrong(key, value, f"at most {LONGEST} characters")
    if value == MISSING:
        raise wrong(key, value, "a value (OmegaConf would leave what was there)")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{brief(key, KEY)}: got a number of {value.bit_length()} bits, must be at most {LARGEST}")


def refers_only(content: Any, key: str = "") -> None:
    """Refuse interpolations that call (`${oc.env:...}`): a config may point to its own values and read nothing else."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            refers_only(value, f"{key}{name}.")
    elif isinstance(content, (list, tuple)):
        for item in content:
            refers_only(item, key)
    elif isinstance(content, str) and "${" in REFERENCE.sub("", content):
        raise wrong(key.removesuffix("."), content, "plain or point to a value, as in ${optim.lr}")


def storable(text: str) -> bool:
    """Tell whether a text can be written to a file and be part of a path."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def check_group(conf: Conf, group: str, values: Any, chosen: list[str]) -> None:
    """Check the knobs of a group's chosen option, or of each entry where several may be chosen."""
    if not chosen and not conf.several(group):
        raise wrong(group, values, "an option")
    if not isinstance(values, Mapping):
        raise wrong(group, values, f"an option or knobs of one ({group}.<knob>=...)")
    if not conf.several(group):
        check_name(group, values, known := template(conf, group, chosen[0]))
        check_knobs(group, values, known)
        return
    entries = templates(conf, group, chosen)
    for entry, knobs in values.items():
        if entry not in entries:
            raise not_chosen(conf, group, str(entry), chosen)
        if not isinstance(knobs, Mapping):
            listed = ", ".join(f"{group}.{entry}.{knob}" for knob in entries[entry])
            raise wrong(f"{group}.{entry}", knobs, f"set by its knobs ({listed})")
        check_knobs(f"{group}.{entry}", knobs, entries[entry])


def check_name(group: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse a component's name set apart from its option's knobs."""
    if "name" in known and values.get("name") != known["name"]:
        given = values.get("name")
        says = f"'{known['name']}' as in its YAML; another option is chosen by {group}={given}"
        raise wrong(f"{group}.name", given, says)


def not_chosen(conf: Conf, group: str, entry: str, chosen: list[str]) -> ConfigError:
    """Return the error for knobs of an option that this run does not have."""
    if entry in conf.files[group]:
        return ConfigError(f"{group}.{entry}: '{entry}' is not chosen; add it: {group}=[{','.join([*chosen, entry])}]")
    return unknown(group, "option", entry, conf.files[group])


def check_knobs(key: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Check that a component's keys are those of its YAML, with values of the same types."""
    for name, value in values.items():
        if name not in known:
            raise unknown(f"{key}.{name}", "key", str(name), known)
        check_type(f"{key}.{name}", value, known[name])
    for name in known:
        if name not in values:
            raise ConfigError(f"{key}.{name}: missing (has none in its YAML)")


def check_type(key: str, value: Any, example: Any) -> None:
    """Check that a value is of the example's type; null on either side leaves it to assembly."""
    if value is None or example is None or (isinstance(example, str) and "${" in example):
        return
    if isinstance(example, str) and DURATION.fullmatch(example):
        check(key, value, Duration)
    elif type(example) in PLAIN:
        check(key, value, type(example))
    elif isinstance(example, list) and not isinstance(value, list):
        raise wrong(key, value, "a list [a,b,...]")
    elif isinstance(example, Mapping) and not isinstance(value, Mapping):
        raise wrong(key, value, "a mapping {a: b}")
