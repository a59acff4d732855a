"""What a user's config file may not say, found before Hydra reads it.

Hydra runs code from configs (callbacks, logging, plugins by `_target_`), so a file may reach no further than our groups
and global fields. Every file that Hydra will read on account of a choice is followed from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from runner.door.choices import choice
from runner.door.options import OPTION, RECIPE, Conf, primary_file
from runner.door.yaml_files import document
from runner.errors import ConfigError, unknown
from runner.plain_yaml import plain, refers_only

HYDRA_KEYS = ("mode", "sweeper", "launcher")
HYDRA_GROUPS = ("/hydra/sweeper", "/hydra/sweeper/sampler", "/hydra/sweeper/pruner", "/hydra/launcher")
HEADER = re.compile(r"\s*#\s*@(.*)")


def screen(conf: Conf, group: str, option: str) -> None:
    """Refuse a chosen option, or an option that it builds on, if its file says what no config may say."""
    follow(conf, group, conf.files[group][option], ())


def screen_primary(conf: Conf) -> None:
    """Refuse the config of `--config-name` if it, or an option that it takes, says what no config may say."""
    follow(conf, "", primary_file(conf, conf.primary), ())


def follow(conf: Conf, group: str, path: Path, trail: tuple[Path, ...]) -> None:
    """Screen one file and those that its defaults list names."""
    if path in trail:
        raise ConfigError(f"{path}: builds on itself")
    content = document(path)
    if conf.ours(path):
        return
    package(path, recipe=group == RECIPE)
    plain(content, f"{path}: ")
    if group in ("", RECIPE):
        global_keys(path, content)
    refers_only(content, f"{path}: ")
    for place, name in below(conf, group, path, content.get("defaults", [])):
        file = conf.files[place][name] if place else primary_file(conf, name)
        follow(conf, place, file, (*trail, path))


def package(path: Path, *, recipe: bool) -> None:
    """Refuse a header that puts a file's values elsewhere than into its group (a recipe's: at the top)."""
    given = header(path)
    if recipe and given != "package _global_":
        raise ConfigError(f"{path}: a recipe starts with the line '# @package _global_'")
    if not recipe and given:
        raise ConfigError(f"{path}: '# @{given}' is not taken, values go where the file lies")


def header(path: Path) -> str:
    """Return what Hydra takes for a file's header: the lines '# @...' that only blank lines come before."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return " ".join(match[1].strip() for match in takewhile(bool, map(HEADER.match, lines)) if match)


def global_keys(path: Path, content: dict[str, Any]) -> None:
    """Refuse what only the command line may set."""
    if content.get("plugins"):
        raise ConfigError(f"{path}: plugins: may be given on the command line only, a file must not import code")
    hydra = content.get("hydra") or {}
    for name in hydra if isinstance(hydra, dict) else [str(hydra)]:
        if name not in HYDRA_KEYS:
            raise ConfigError(f"{path}: hydra.{name}: is not for a config file (only {', '.join(HYDRA_KEYS)})")
    if "${" in str(hydra):
        raise ConfigError(f"{path}: hydra: must be plain values, without ${{...}}")


def below(conf: Conf, group: str, path: Path, defaults: Any) -> Iterator[tuple[str, str]]:
    """Yield group and option of each file that a defaults list adds; ("", name) for a config beside the groups."""
    if not isinstance(defaults, list):
        raise ConfigError(f"{path}: defaults: must be a list")
    places = [str(place) for entry in defaults if isinstance(entry, dict) for place in entry]
    if twice := {place for place in places if places.count(place) > 1}:
        raise ConfigError(f"{path}: defaults: {min(twice)}: given twice")
    for entry in defaults:
        if isinstance(entry, str):
            yield from named(conf, group, path, entry)
        elif isinstance(entry, dict) and len(entry) == 1:
            ((place, value),) = entry.items()
            yield from chosen(conf, group, path, str(place), value)
        else:
            raise ConfigError(f"{path}: defaults: cannot take {entry}")


def named(conf: Conf, group: str, path: Path, entry: str) -> Iterator[tuple[str, str]]:
    """Yield the file that a bare word in a defaults list names: one of the same folder."""
    known = conf.files[group] if group else {file.stem for folder in conf.folders for file in folder.glob("*.yaml")}
    if entry in known:
        yield group, entry
    elif entry != "_self_":
        raise unknown(f"{path}: defaults", "option", entry, known)


def chosen(conf: Conf, group: str, path: Path, place: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the files that `group: option` in a defaults list names."""
    if group not in ("", RECIPE):
        raise ConfigError(f"{path}: defaults: {place}: an option can build on options of its own group only")
    target = ("" if group else "/") + place.removeprefix("override ").strip().removeprefix("" if group else "/")
    if target in HYDRA_GROUPS and place.startswith("override "):
        if not OPTION.fullmatch(str(value)):
            raise ConfigError(f"{path}: defaults: {place}: got {value}, must be one word")
        return
    known = {f"/{name}": name for name in conf.files}
    if target not in known:
        raise unknown(f"{path}: defaults", "group", target, known)
    for option in choice(conf, known[target], value):
        yield known[target], option
