"""The config folders: their YAML files as plain dicts, their groups, and which options a value chooses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from runner import plain_yaml, user_paths
from runner.errors import ConfigError, brief, unknown, wrong
from runner.plain_yaml import conf_folder, yaml_files

# One word in Hydra's grammar
OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RECIPE = "recipe"


class Conf(NamedTuple):
    """The config folders, runner's first, and the options in them."""

    folders: tuple[Path, ...]
    primary: str  # name of the config that composition starts from
    defaults: Mapping[str, Any]  # group -> option, or list of options for a pick-many group
    files: Mapping[str, Mapping[str, Path]]  # group -> option -> file
    settings: Mapping[str, Any]  # the global fields, as runner's config.yaml sets them
    allow_unused: bool = False  # values that do nothing are accepted: they are those of an earlier command
    more: tuple[Path, ...] = ()  # those of the folders that no user wrote

    def several(self, group: str) -> bool:
        """Return True if any number of a group's options may be chosen."""
        return isinstance(self.defaults[group], list)

    def is_shipped(self, path: Path) -> bool:
        """Return True if a file is shipped with runner."""
        return self.folders[0] in path.parents


def find_conf(config_dir: str | None = None, primary: str = "config", more: Sequence[Path] = ()) -> Conf:
    """Return runner's configs, those of the user's folder if one is given, and those of `more` folders."""
    folders = [conf_folder()]
    if config_dir is not None:
        folders.append(_user_folder(config_dir))
    folders += more
    main = read_yaml(folders[0] / "config.yaml")
    defaults = dict(_groups(main["defaults"]))
    files = {group: _options(group, folders) for group in defaults}
    names = {path.stem for folder in folders for path in yaml_files(folder)}
    if primary not in names:
        raise unknown("--config-name", "config", primary, names)
    settings = {key: value for key, value in main.items() if key not in ("defaults", "hydra")}
    return Conf(tuple(folders), primary, defaults, files, settings, more=tuple(more))


def _user_folder(config_dir: str) -> Path:
    """Return the folder of `--config-dir`; raises ConfigError if Hydra would ignore or execute a file in it."""
    folder = Path(user_paths.full(config_dir)).absolute()
    if not config_dir or not user_paths.is_dir(config_dir, key="--config-dir"):
        raise ConfigError(f"--config-dir: got '{config_dir}', must be a folder that exists")
    if user_paths.exists(folder / "hydra"):
        raise ConfigError(f"{folder / 'hydra'}: a config folder must not set Hydra up (it runs code from there)")
    if user_paths.exists(folder / "config.yaml"):
        raise ConfigError(
            f"{folder / 'config.yaml'}: is hidden by the config of runner; rename it and use --config-name"
        )
    return folder


def _groups(defaults: list[Any]) -> list[tuple[str, Any]]:
    """Return the groups and defaults of runner's defaults list, without Hydra's own entries."""
    pairs = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    return [(str(group), option) for group, option in pairs if not group.startswith("override ")]


def _options(group: str, folders: list[Path]) -> dict[str, Path]:
    """Return the options of a group with their files; raises ConfigError for two files of one name."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in yaml_files(folder / group):
            if path.stem in found:
                raise ConfigError(f"{path}: {group}={path.stem} comes with runner; give the file another name")
            if OPTION.fullmatch(path.stem):
                found[path.stem] = path
    return found


def primary_file(conf: Conf, name: str) -> Path:
    """Return the file of a config that is in a config folder itself, not in a group."""
    return next(
        path for path in (folder / f"{name}.yaml" for folder in conf.folders) if user_paths.exists(path, links=False)
    )


def option_values(conf: Conf, group: str, option: str) -> dict[str, Any]:
    """Return the values of an option's file, merged over those of the options that it extends.

    Raises ConfigError if no config folder has the file, as where a saved config has a component of a user.
    """
    if option not in conf.files[group]:
        raise unknown(group, "option", option, conf.files[group])
    own = read_yaml(conf.files[group][option])
    values: dict[str, Any] = {}
    for below in own.get("defaults", []):
        if below != "_self_" and isinstance(below, str):
            values |= option_values(conf, group, below)
    return values | {key: value for key, value in own.items() if key != "defaults"}


def template(conf: Conf, group: str, option: str) -> dict[str, Any]:
    """Return the keys of a chosen pick-one option, with values that give their types.

    They are in runner's file of the component, or in the option's own file for a user's component.
    """
    values = option_values(conf, group, option)
    if "name" not in values:
        raise ConfigError(f"{conf.files[group][option]}: name: missing, must be the component that it sets")
    file = conf.files[group].get(str(values["name"]))
    return read_yaml(file) | {"name": values["name"]} if file and conf.is_shipped(file) else values


def templates(conf: Conf, group: str, chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of a pick-many group for the chosen options, each with the values that give its types."""
    found: dict[str, dict[str, Any]] = {}
    for option in chosen:
        for entry, knobs in option_values(conf, group, option).items():
            if not isinstance(knobs, dict):
                raise wrong(f"{conf.files[group][option]}: {entry}", knobs, "a mapping of its knobs {a: b}")
            file = conf.files[group].get(entry)
            found[entry] = read_yaml(file)[entry] if file and conf.is_shipped(file) else knobs
    return found


@cache
def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds, interpolations unresolved.

    Raises ConfigError, with file and line, if the file is too large or too deep, has anchors or tags, or is no mapping.
    """
    content = plain_yaml.loaded_config(path)
    if _refers(content):
        _check_references(path, content)
    return content


def _refers(value: Any) -> bool:
    """Return True if a value has an interpolation in its texts; Python refuses to print very large numbers."""
    if isinstance(value, Mapping):
        return any(_refers(each) for item in value.items() for each in item)
    return any(map(_refers, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


def _check_references(path: Path, content: dict[str, Any]) -> None:
    """Raise ConfigError for interpolations that OmegaConf cannot parse."""
    # Late: no file of runner has one, and `--help` does without OmegaConf
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.create(content)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error


def chosen_options(conf: Conf, group: str, value: Any) -> list[str]:
    """Return the chosen options of a group, in order; none for an empty list and for `recipe=null`.

    Raises ConfigError for an unknown option, an option that is given twice, and several options where one is allowed.
    """
    if value is None and group == RECIPE:
        return []
    if isinstance(value, dict):
        raise ConfigError(f"{group}: got {brief(str(value))}, must be an option")
    if value is None:
        raise ConfigError(f"{group}: got null, must be {'a list, [] for none' if conf.several(group) else 'an option'}")
    if isinstance(value, (list, tuple)) and not conf.several(group):
        listed = ",".join(map(str, value))
        raise ConfigError(f"{group}: got [{listed}], must be one option (to try each: -m {group}={listed})")
    words = [str(word) for word in (value if isinstance(value, (list, tuple)) else [value])]
    for index, word in enumerate(words):
        if word not in conf.files[group]:
            raise unknown(group, "option", word, conf.files[group])
        if word in words[:index]:
            raise ConfigError(f"{group}: given twice ('{word}')")
    return words


def default_choice(conf: Conf, group: str, recipe: Any) -> list[str]:
    """Return the options of a pick-many group that the command line does not set.

    Hydra reports the choices of the other groups, but not lists: the first `override` counts, else the default.
    """
    files = [("", conf.primary), *((RECIPE, name) for name in chosen_options(conf, RECIPE, recipe))]
    overrides = (f"override {group}", f"override /{group}")
    found = itertools.chain(
        *(_values_in_defaults(conf, place, name, overrides) for place, name in files),
        _values_in_defaults(conf, "", conf.primary, (group,)),
    )
    return chosen_options(conf, group, next(found, []))


def _values_in_defaults(conf: Conf, group: str, name: str, keys: tuple[str, ...]) -> Iterator[Any]:
    """Yield the values of keys in a config's defaults list, then in those of the configs that it extends."""
    entries = read_yaml(conf.files[group][name] if group else primary_file(conf, name)).get("defaults", [])
    yield from (value for entry in entries if isinstance(entry, dict) for key, value in entry.items() if key in keys)
    for entry in entries:
        if isinstance(entry, str) and entry != "_self_":
            yield from _values_in_defaults(conf, group, entry, keys)
