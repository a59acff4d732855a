"""Checks of a user's config files before Hydra reads them.

Hydra runs code from configs (callbacks, logging, plugins by `_target_`), so a user's file may set only groups and
settings. All files that Hydra reads because of a choice are checked, through their defaults lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from runner.door.options import OPTION, RECIPE, Conf, chosen_options, primary_file, read_yaml
from runner.errors import ConfigError, unknown
from runner.plain_yaml import check_interpolations, check_values, line_of, read_text, yaml_files

_HYDRA_KEYS = ("mode", "sweeper", "launcher")
_HYDRA_GROUPS = ("/hydra/sweeper", "/hydra/sweeper/sampler", "/hydra/sweeper/pruner", "/hydra/launcher")
_HEADER = re.compile(r"\s*#\s*@(.*)")


def check_option_file(conf: Conf, group: str, option: str) -> None:
    """Raise ConfigError if the file of an option, or of one that it extends, sets keys that a file must not set."""
    _check_file(conf, group, conf.files[group][option], ())


def check_primary_file(conf: Conf) -> None:
    """Raise ConfigError if the config of `--config-name`, or an option in it, sets keys that a file must not set."""
    _check_file(conf, "", primary_file(conf, conf.primary), ())


def _check_file(conf: Conf, group: str, path: Path, trail: tuple[Path, ...]) -> None:
    """Check one file and those that its defaults list names."""
    if path in trail:
        raise ConfigError(f"{path}: extends itself")
    content = read_yaml(path)
    if conf.is_shipped(path):
        return
    _check_header(path, recipe=group == RECIPE)
    try:
        check_values(content, f"{path}: ")
        if group in ("", RECIPE):
            _check_global_keys(path, content)
        check_interpolations(content, f"{path}: ")
        files = list(_files_in_defaults(conf, group, path, content.get("defaults", [])))
    except ConfigError as error:
        raise _with_line(path, str(error)) from error
    for place, name in files:
        file = conf.files[place][name] if place else primary_file(conf, name)
        _check_file(conf, place, file, (*trail, path))


def _with_line(path: Path, text: str, key: str = "") -> ConfigError:
    """Return the error `path: key: ...` with the line of the key after the path; `key` is another one to look for."""
    beginning = f"{path}: "
    rest = text.removeprefix(beginning)
    line = line_of(path, key or rest.partition(":")[0]) if text.startswith(beginning) else None
    return ConfigError(f"{path}:{line}: {rest}" if line else text)


def _check_header(path: Path, *, recipe: bool) -> None:
    """Reject a header that puts a file's values anywhere but into its group, or for a recipe at the top."""
    given = _header(path)
    if recipe and given != "package _global_":
        raise ConfigError(f"{path}: a recipe starts with the line '# @package _global_'")
    if not recipe and given:
        raise ConfigError(f"{path}: '# @{given}' is not supported; values belong to the group of the file's folder")


def _header(path: Path) -> str:
    """Return the header that Hydra reads in a file: the lines '# @...' before the first line of content."""
    lines = (line for line in read_text(path).splitlines() if line.strip())
    return " ".join(match[1].strip() for match in takewhile(bool, map(_HEADER.match, lines)) if match)


def _check_global_keys(path: Path, content: dict[str, Any]) -> None:
    """Reject keys that only the command line may set."""
    if content.get("plugins"):
        raise ConfigError(f"{path}: plugins: allowed on the command line only, because a file must not import code")
    hydra = content.get("hydra") or {}
    for name in hydra if isinstance(hydra, dict) else [str(hydra)]:
        if name not in _HYDRA_KEYS:
            raise ConfigError(f"{path}: hydra.{name}: is not allowed in a file (allowed: {', '.join(_HYDRA_KEYS)})")
    if "${" in str(hydra):
        raise ConfigError(f"{path}: hydra: must be plain values, without ${{...}}")


def _files_in_defaults(conf: Conf, group: str, path: Path, defaults: Any) -> Iterator[tuple[str, str]]:
    """Yield group and option of each file that a defaults list adds; ("", name) for a config beside the groups."""
    if not isinstance(defaults, list):
        raise ConfigError(f"{path}: defaults: must be a list")
    places = [str(place) for entry in defaults if isinstance(entry, dict) for place in entry]
    if twice := {place for place in places if places.count(place) > 1}:
        raise ConfigError(f"{path}: defaults: {min(twice)}: given twice")
    for number, entry in enumerate(defaults):
        try:
            if isinstance(entry, str):
                yield from _file_in_same_folder(conf, group, path, entry)
            elif isinstance(entry, dict) and len(entry) == 1:
                ((place, value),) = entry.items()
                yield from _files_of_group(conf, group, path, str(place), value)
            else:
                raise ConfigError(f"{path}: defaults: {entry} is not supported")
        except ConfigError as error:
            raise _with_line(path, f"{path}: {str(error).removeprefix(f'{path}: ')}", f"defaults.{number}") from error


def _file_in_same_folder(conf: Conf, group: str, path: Path, entry: str) -> Iterator[tuple[str, str]]:
    """Yield the file that a bare word in a defaults list names: one of the same folder."""
    known = conf.files[group] if group else {file.stem for folder in conf.folders for file in yaml_files(folder)}
    if entry in known:
        yield group, entry
    elif entry != "_self_":
        raise unknown(f"{path}: defaults", "option", entry, known)


def _files_of_group(conf: Conf, group: str, path: Path, place: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the files that `group: option` in a defaults list names."""
    if group not in ("", RECIPE):
        raise ConfigError(f"{path}: defaults: {place}: an option can extend only options of its own group")
    target = ("" if group else "/") + place.removeprefix("override ").strip().removeprefix("" if group else "/")
    if target in _HYDRA_GROUPS and place.startswith("override "):
        if not OPTION.fullmatch(str(value)):
            raise ConfigError(f"{path}: defaults: {place}: got {value}, must be one word")
        return
    known = {f"/{name}": name for name in conf.files}
    if target not in known:
        raise unknown(f"{path}: defaults", "group", target, known)
    for option in chosen_options(conf, known[target], value):
        yield known[target], option
