"""The components that a notebook or script registers itself, as options of their groups.

Options have YAML files; for these components a call writes files of its own. A knob has the default of its parameter.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from runner.door.options import OPTION, Conf, find_conf, option_values
from runner.errors import ConfigError, unknown, wrong
from runner.registry import MAIN, knobs, registered_in

# The value of a knob that must be given
_MISSING = "???"


@contextmanager
def options_of_main(words: Sequence[str]) -> Iterator[tuple[list[Path], list[str]]]:
    """Yield the config folders and the plugins for the components of `__main__`, none if there are none.

    Args:
        words: The words of the call; the plugin is among its plugins only if a word names a component.

    """
    found = registered_in(MAIN)
    if not found:
        yield [], []
        return
    conf = find_conf()
    with tempfile.TemporaryDirectory(prefix="runner-") as place:
        for kind, name, factory in found:
            _write_option(conf, Path(place), kind, name, factory)
        named = {part for word in words for part in re.findall(r"[\w-]+", word)}
        used = any(name in named for _, name, _ in found) or "resume" in named
        yield [Path(place)], [MAIN] if used else []


def _write_option(conf: Conf, place: Path, kind: str, name: str, factory: Callable[..., Any]) -> None:
    """Write the YAML file of a component."""
    if kind not in conf.defaults:
        raise unknown(f"register('{kind}')", "kind", kind, conf.defaults)
    if not OPTION.fullmatch(name):
        raise wrong(f"register('{kind}')", name, "a word of letters, digits, _ and -")
    values = {knob: _default(conf, kind, name, factory, knob) for knob in knobs(factory)}
    content = {name: values} if conf.several(kind) else {"name": name, **values}
    try:
        text = yaml.safe_dump(content, sort_keys=False)
    except yaml.YAMLError as error:
        raise ConfigError(f"{kind}={name}: a default must be a number, a text, a list or a mapping") from error
    (place / kind).mkdir(exist_ok=True)
    (place / kind / f"{name}.yaml").write_text(text, encoding="utf-8")


def _default(conf: Conf, kind: str, name: str, factory: Callable[..., Any], knob: str) -> Any:
    """Return the value of a knob that nobody sets: the parameter's default, or what all options of the kind agree on.

    The second is for knobs that components of a kind share, such as the rules of all optimizers.
    """
    own = inspect.signature(factory).parameters.get(knob)
    if own is not None:
        return _MISSING if own.default is own.empty else own.default
    options = [option_values(conf, kind, option) for option in conf.files[kind]]
    given = [values[knob] for values in options if knob in values]
    return given[0] if given and all(each == given[0] for each in given) else _MISSING
