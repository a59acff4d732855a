"""The components that a notebook or script registers itself, as options of their groups.

Options have YAML files; for these components a call writes files of its own. A knob has the default of its parameter.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from runner.door.options import OPTION, Conf, find_conf, option_values
from runner.engine.saving.storage import convert_os_errors
from runner.errors import ConfigError, unknown, wrong
from runner.registry import MAIN, knobs, registered_in


@contextmanager
def options_of_main(words: Sequence[str]) -> Iterator[tuple[list[Path], list[str]]]:
    """Yield the config folders and the plugins for the components of `__main__`, none if there are none.

    Args:
        words: The words of the call; the plugin is among its plugins only if a word names a component.

    Raises:
        ConfigError: If a component that a word names cannot be an option, or lacks a value.

    """
    found = registered_in(MAIN)
    if not found:
        yield [], []
        return
    conf = find_conf()
    named = {part for word in words for part in re.findall(r"[\w-]+", word)}
    with tempfile.TemporaryDirectory(prefix="runner-") as place:
        for kind, name, factory in found:
            if kind not in conf.defaults:
                raise unknown(f"register('{kind}')", "kind", kind, conf.defaults)
            values = {knob: _default(conf, kind, factory, knob) for knob in knobs(factory)}
            try:
                _write_option(conf, Path(place), kind, name, values)
            except ConfigError:
                # One that this call does not use must not stop it
                if name in named:
                    raise
            if name in named and "resume" not in named:
                _check_given(conf, kind, name, values, words)
        used = any(name in named for _, name, _ in found) or "resume" in named
        yield [Path(place)], [MAIN] if used else []


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


def _check_given(conf: Conf, kind: str, name: str, values: Mapping[str, Any], words: Sequence[str]) -> None:
    """Raise ConfigError if a knob without a default is not set by a word."""
    given = {word.lstrip("+").partition("=")[0] for word in words}
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
