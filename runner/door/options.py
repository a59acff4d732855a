"""Where the values lie: the config folders, their groups, and the options of each group."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.door.yaml_files import document
from runner.errors import ConfigError, unknown
from runner.registry import shipped

OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # what Hydra's grammar reads as one word
RECIPE = "recipe"


@dataclass(frozen=True)
class Conf:
    """The config folders, ours first, and what may be chosen in them."""

    folders: tuple[Path, ...]
    primary: str  # name of the config that composition starts from
    defaults: Mapping[str, Any]  # group -> option, or list of options for a pick-many group
    files: Mapping[str, Mapping[str, Path]]  # group -> option -> file
    settings: Mapping[str, Any]  # the global fields as our config.yaml sets them

    def several(self, group: str) -> bool:
        """Tell whether any number of a group's options may be chosen."""
        return isinstance(self.defaults[group], list)

    def ours(self, path: Path) -> bool:
        """Tell whether a file is shipped with runner."""
        return self.folders[0] in path.parents


def find_conf(config_dir: str | None = None, primary: str = "config") -> Conf:
    """Return the configs: ours, and those of the user's folder if one is given."""
    folders = [shipped()]
    if config_dir is not None:
        folders.append(user_folder(config_dir))
    main = document(folders[0] / "config.yaml")
    defaults = dict(groups(main["defaults"]))
    files = {group: options(group, folders) for group in defaults}
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    if primary not in names:
        raise unknown("--config-name", "config", primary, names)
    settings = {key: value for key, value in main.items() if key not in ("defaults", "hydra")}
    return Conf(tuple(folders), primary, defaults, files, settings)


def user_folder(config_dir: str) -> Path:
    """Return the folder of `--config-dir`, made sure that nothing in it would be passed over or run."""
    folder = Path(config_dir).absolute()
    if not config_dir or not os.path.isdir(folder):  # noqa: PTH112  (Path.is_dir raises for a name too long)
        raise ConfigError(f"--config-dir: got '{config_dir}', must be a folder that exists")
    if (folder / "hydra").exists():
        raise ConfigError(f"{folder / 'hydra'}: a config folder must not set Hydra up (it runs code from there)")
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder / 'config.yaml'}: would not be read, ours has this name; rename it: --config-name")
    return folder


def groups(defaults: list[Any]) -> list[tuple[str, Any]]:
    """Return group and default of our defaults list; Hydra's own entries left out."""
    pairs = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    return [(str(group), option) for group, option in pairs if not group.startswith("override ")]


def options(group: str, folders: list[Path]) -> dict[str, Path]:
    """Return the options of a group with their files; two files of one name are an error."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            if path.stem in found:
                raise ConfigError(f"{path}: {group}={path.stem} is ours; give the file another name")
            if OPTION.fullmatch(path.stem):
                found[path.stem] = path
    return found


def primary_file(conf: Conf, name: str) -> Path:
    """Return the file of a config that stands beside the groups."""
    return next(path for path in (folder / f"{name}.yaml" for folder in conf.folders) if path.is_file())


def merged(conf: Conf, group: str, option: str) -> dict[str, Any]:
    """Return what an option's file sets, on top of the options of its group that it builds on."""
    own = document(conf.files[group][option])
    values: dict[str, Any] = {}
    for below in own.get("defaults", []):
        if below != "_self_" and isinstance(below, str):
            values |= merged(conf, group, below)
    return values | {key: value for key, value in own.items() if key != "defaults"}


def template(conf: Conf, group: str, option: str) -> dict[str, Any]:
    """Return the keys of a chosen pick-one option, with values that give their types.

    They stand in our file of the component that the option names, and in the option itself where that is a user's own.
    """
    values = merged(conf, group, option)
    file = conf.files[group].get(str(values.get("name")))
    return document(file) | {"name": values["name"]} if file and conf.ours(file) else values


def templates(conf: Conf, group: str, chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of a pick-many group for the chosen options, each with the values that give its types."""
    found: dict[str, dict[str, Any]] = {}
    for option in chosen:
        for entry, knobs in merged(conf, group, option).items():
            file = conf.files[group].get(entry)
            found[entry] = document(file)[entry] if file and conf.ours(file) else knobs
    return found
