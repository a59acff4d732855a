"""Check a composed config without torch: groups and keys, types and ranges.

Keys are compared with the YAML files, values with the types in the components' source. The types of a user's component
come from its YAML. Assembly checks what needs the data or the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.annotations import annotation
from runner.batch_sizes import check_batch_size
from runner.door.metrics import check_scores
from runner.door.options import RECIPE, Conf, chosen_options, template, templates
from runner.errors import ConfigError, shown, unknown, wrong
from runner.keys import read_by_some_tasks
from runner.plain_yaml import check_values
from runner.relations import check_relations
from runner.schema import PLAIN, Duration, Pattern, check
from runner.settings import NEEDS, NEUTRAL, SETTINGS
from runner.source_reader import PACKAGE
from runner.unused_settings import length_in, refuse_unused

_Chosen = Mapping[str, list[str]]  # the options of each group
_TRANSFER = "transfer"
_DURATION: Pattern = Duration.__metadata__[0]  # type: ignore[attr-defined]


def check_config(conf: Conf, config: Mapping[str, Any], chosen: Mapping[str, list[str]]) -> None:
    """Raise ConfigError unless every key of a resolved config is known and every value is of its type.

    `chosen` holds the options of each group.
    """
    check_values(config)
    for key, value in config.items():
        if key in SETTINGS:
            check(key, value, SETTINGS[key])
        elif key in conf.defaults:
            _check_group(conf, key, value, chosen)
        else:
            # Late: it imports this module, and only a wrong key needs it
            from runner.door.suggestions import unknown_top_key

            raise unknown_top_key(conf, chosen, str(key), value)
    for key in [*conf.defaults, *SETTINGS]:
        if key not in config and key != RECIPE:
            raise ConfigError(f"{key}: missing")
    check_scores(conf, config)
    check_relations("", config, SETTINGS)
    check_batch_size(config)
    for key, other in NEEDS.items():
        if config[key] and config[key] != NEUTRAL.get(key) and config[other] is None:
            raise ConfigError(f"{key}: got {shown(config[key])}; requires {other}=...")
    if config["init_from"] is None and (name := config.get(_TRANSFER, {}).get("name", "none")) != "none":
        raise ConfigError(
            f"{_TRANSFER}: got {name}; requires init_from=<run folder, file of weights, or name of published ones>; "
            "transfer=none trains from random weights"
        )
    task = str(config["task"]["name"])
    for key, readers in read_by_some_tasks().items():
        # A task of runner's own, not a plugin's
        if config[key] is not None and task not in readers and (PACKAGE / "tasks" / f"{task}.py").is_file():
            words = " or ".join(filter(None, (", ".join(readers[:-1]), readers[-1])))
            raise ConfigError(f"{key}: requires task={words}; got task={task}")
    if not conf.allow_unused:
        refuse_unused(config, length_in(config), next(iter(chosen.get(RECIPE, ())), None))


def _check_group(conf: Conf, group: str, values: Any, all_chosen: _Chosen) -> None:
    """Check the knobs of a group's chosen option, or of each entry where several may be chosen."""
    chosen = all_chosen[group]
    if not chosen and not conf.several(group):
        raise wrong(group, values, "an option")
    if not isinstance(values, Mapping):
        raise wrong(group, values, f"an option or knobs of one ({group}.<knob>=...)")
    if not conf.several(group):
        _check_name(conf, group, values, known := template(conf, group, chosen[0]))
        _refuse_unknown(conf, all_chosen, group, values, known)
        _check_knobs(group, values, known, (group, str(values.get("name"))))
        return
    entries = templates(conf, group, chosen)
    for entry, knobs in values.items():
        if entry not in entries:
            raise _not_chosen(conf, all_chosen, group, str(entry), knobs)
        if not isinstance(knobs, Mapping):
            listed = ", ".join(f"{group}.{entry}.{knob}" for knob in entries[entry])
            raise wrong(f"{group}.{entry}", knobs, f"set by its knobs ({listed})")
        _refuse_unknown(conf, all_chosen, f"{group}.{entry}", knobs, entries[entry])
        _check_knobs(f"{group}.{entry}", knobs, entries[entry], (group, str(entry)))


def _check_name(conf: Conf, group: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Reject a change of a component's `name`, because its knobs would be those of another option."""
    if "name" in known and values.get("name") != known["name"]:
        given = values.get("name")
        try:
            option = chosen_options(conf, group, str(given))[0]
        except ConfigError as error:
            raise ConfigError(f"{group}.name: {str(error).partition(': ')[2]}") from error
        expected = f"'{known['name']}' as in its YAML; choose another option with {group}={option}"
        raise wrong(f"{group}.name", given, expected)


def _not_chosen(conf: Conf, chosen: _Chosen, group: str, entry: str, value: Any) -> ConfigError:
    """Return the error for knobs of an option that is not chosen."""
    if entry in conf.files[group]:
        listed = ",".join([*chosen[group], entry])
        return ConfigError(f"{group}.{entry}: '{entry}' is not chosen; add it: {group}=[{listed}]")
    if isinstance(value, Mapping):
        return unknown(group, "option", entry, conf.files[group])
    from runner.door.suggestions import unknown_knob

    return unknown_knob(conf, chosen, f"{group}.{entry}", value, list(conf.files[group]))


def _refuse_unknown(
    conf: Conf, chosen: _Chosen, place: str, values: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    """Raise ConfigError for a key that a component does not have."""
    for name, value in values.items():
        if name not in known:
            from runner.door.suggestions import unknown_knob

            raise unknown_knob(conf, chosen, f"{place}.{name}", value, [str(each) for each in known])


def _check_knobs(key: str, values: Mapping[str, Any], known: Mapping[str, Any], component: tuple[str, str]) -> None:
    """Check that a component's keys are all there, and that their values have the right types."""
    for name, value in values.items():
        if type(value) is type(known[name]) and value == known[name]:
            # Most values are those of the YAML; their types need not be read
            continue
        check_knob(f"{key}.{name}", value, known, component)
    for name in known:
        if name not in values:
            raise ConfigError(f"{key}.{name}: missing in its YAML")
    if values != known:
        check_relations(key, values, {name: annotation(*component, str(name)) for name in values})


def check_knob(key: str, value: Any, known: Mapping[str, Any], component: tuple[str, str]) -> None:
    """Check the value of a component's knob; `known` are all its knobs with values that give their types."""
    name = key.rpartition(".")[2]
    kind = annotation(*component, name)
    if kind is None:
        check_type(key, value, known[name])
    else:
        check(key, value, kind)


def check_type(key: str, value: Any, example: Any) -> None:
    """Check that a value has the type of an example; if either is null, assembly checks it."""
    if value is None or example is None or (isinstance(example, str) and "${" in example):
        return
    if isinstance(example, str) and example in _DURATION:
        check(key, value, Duration)
    elif type(example) in PLAIN:
        check(key, value, type(example))
    elif isinstance(example, list) and not isinstance(value, list):
        if type(value) is int and len(example) == 2:
            # May be one number for a square, which the types of a plugin say
            return
        raise wrong(key, value, "a list [a,b,...]")
    elif isinstance(example, Mapping) and not isinstance(value, Mapping):
        raise wrong(key, value, "a mapping {a: b}")
