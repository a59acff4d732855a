"""The components that a notebook or script registers itself, as options of their groups.

Options have YAML files; for these components a call writes files of its own. A knob has the default of its parameter.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from runner.door.command import Command
from runner.door.options import OPTION, Conf, find_conf, option_values
from runner.door.saved_choices import saved_config_of
from runner.engine.saving.storage import convert_os_errors
from runner.errors import ConfigError, unknown, wrong
from runner.registry import MAIN, knobs, registered_in


@contextmanager
def options_of_main(words: Sequence[str]) -> Iterator[tuple[list[Path], bool]]:
    """Yield the config folders for the components of `__main__`, and True if a word or its saved run chooses one.

    Args:
        words: The words of the call.

    Raises:
        ConfigError: If a component that a word names cannot be an option, or lacks a value.

    """
    found = registered_in(MAIN)
    if not found:
        yield [], False
        return
    conf = find_conf()
    given = [word.lstrip("+").partition("=")[::2] for word in words]
    # What `resume` continues has the values of its own
    resumed = any(key == "resume" for key, _ in given)
    with tempfile.TemporaryDirectory(prefix="runner-") as place:
        chosen = [_is_chosen(kind, name, given) for kind, name, _ in found]
        for (kind, name, factory), named in zip(found, chosen, strict=True):
            if kind not in conf.defaults:
                raise unknown(f"register('{kind}')", "kind", kind, conf.defaults)
            values = {knob: _default(conf, kind, factory, knob) for knob in knobs(factory)}
            try:
                _write_option(conf, Path(place), kind, name, values)
            except ConfigError:
                # One that this call does not use must not stop it
                if named:
                    raise
            if named and not resumed:
                _check_given(conf, kind, name, values, {key for key, _ in given})
        yield [Path(place)], any(chosen) or _saved_run_uses_main(words, resumed=resumed)


def _is_chosen(kind: str, name: str, given: Sequence[tuple[str, str]]) -> bool:
    """Return True if a word names a component as an option of its group, or as the metric to monitor."""
    keys = (kind, "monitor") if kind == "metric" else (kind,)
    return any(key in keys and name in re.findall(r"[\w-]+", value) for key, value in given)


def _saved_run_uses_main(words: Sequence[str], *, resumed: bool) -> bool:
    """Return True if the run that a word names has components of `__main__`; a sweep to resume may have some."""
    config = saved_config_of(words)
    return MAIN in (config.get("plugins") or ()) if isinstance(config, dict) else resumed


def uses_main(command: Command) -> bool:
    """Return True if a run of a command has a component of `__main__`, whoever chose it: a recipe may."""
    sweep = command.sweep
    configs = [command.config] if command.config else [job.config for job in sweep.jobs] if sweep else []
    tried: list[tuple[str, str]] = []
    if sweep and sweep.search:
        configs.append(sweep.search.like.config)
        tried = [(axis.key, choice) for axis in sweep.search.search.space.axes for choice in axis.choices]
    return any(
        # A config of the user's own may lack a group
        _is_chosen(kind, name, tried) or any(name in _chosen_in(config.get(kind) or {}) for config in configs)
        for kind, name, _ in registered_in(MAIN)
    )


def _chosen_in(group: Mapping[str, Any]) -> list[str]:
    """Return the options that are chosen in the config of a group: of a group with several, its keys."""
    return [group["name"]] if "name" in group else list(group)


def _write_option(conf: Conf, place: Path, kind: str, name: str, values: Mapping[str, Any]) -> None:
    """Write the YAML file of a component; a knob that must be given is null there."""
    if not OPTION.fullmatch(name):
        raise wrong(f"register('{kind}')", name, "a word of letters, digits, _ and -")
    known = {knob: None if value is inspect.Parameter.empty else value for knob, value in values.items()}
    try:
        text = yaml.safe_dump({name: known} if conf.several(kind) else {"name": name, **known}, sort_keys=False)
    except yaml.YAMLError as error:
        raise ConfigError(f"{kind}={name}: a default must be a number, a text, a list or a mapping") from error
    folder = place / kind
    with convert_os_errors(folder):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _check_given(conf: Conf, kind: str, name: str, values: Mapping[str, Any], given: Container[str]) -> None:
    """Raise ConfigError if a knob without a default is not among the `given` keys."""
    for knob, value in values.items():
        key = f"{kind}.{name}.{knob}" if conf.several(kind) else f"{kind}.{knob}"
        if value is inspect.Parameter.empty and key not in given:
            raise ConfigError(f"{key}: missing, because {name} has no default for it; set {key}=...")


def _default(conf: Conf, kind: str, factory: Callable[..., Any], knob: str) -> Any:
    """Return the value of a knob that nobody sets: the parameter's default, or what all options of the kind agree on.

    The second is for knobs that components of a kind share, such as the rules of all optimizers. `Parameter.empty` if
    it must be set.
    """
    own = inspect.signature(factory).parameters.get(knob)
    if own is not None:
        return own.default
    options = [option_values(conf, kind, option) for option in conf.files[kind]]
    given = [values[knob] for values in options if knob in values]
    return given[0] if given and all(each == given[0] for each in given) else inspect.Parameter.empty
