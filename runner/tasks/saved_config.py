"""The config of an earlier run: read, checked, and changed where a command may change it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from runner import plain_yaml, user_paths
from runner.engine.saving.data_folders import data_of, same_name
from runner.engine.saving.ensemble_file import is_ensemble
from runner.engine.saving.folder import read_environment
from runner.errors import ConfigError, wrong
from runner.hashes import hash8
from runner.identity import data_paths
from runner.keys import key_marks, marked_keys, settings_with
from runner.numerics import COMMAND_ONLY, completed, same_config
from runner.plain_yaml import conf_folder, yaml_files
from runner.registry import MAIN, names
from runner.roles import Role
from runner.schema import check
from runner.settings import GROUPS, SETTINGS
from runner.tasks.job import Job

_CONFIG = "config.yaml"
# The entry of environment.json with the paths of the data in full
PATHS = "paths"
# Keys that may change with `resume=`; so may the paths of the data
MAY_CHANGE = (*settings_with(Role.EXECUTION), "outputs")
# Keys that the config of every version has
_KEYS_OF_EVERY_VERSION = {"data", "model", "optim", "task", "seed", "steps", "epochs"}


def resumed_job(job: Job, task: str) -> Job:
    """Return the job that `resume=<folder>` continues, of a task other than train."""
    folder = str(job.config["resume"])
    config = saved_config(folder, job, key="resume", may_change=MAY_CHANGE, tasks=(task,))
    return replace(job, config=config, folder=folder, folder_name=Path(folder).name, resumed=True)


def saved_config(
    folder: str,
    job: Job,
    *,
    key: str,
    may_change: Collection[str],
    tasks: Collection[str] = ("train",),
    other: Collection[str] = (),
) -> dict[str, Any]:
    """Return the config of an earlier run, with this command's values for the keys in `may_change` and for paths.

    Of a group in `other` a command may choose another option than the run has: then all its knobs are the command's.
    A relative path of the data means what it meant then. Raises ConfigError if the folder holds no training run, or if
    the command line sets any other key.
    """
    path = _config_file(folder, key)
    given = [override.lstrip("+").partition("=")[0] for override in job.overrides]
    config = plain_yaml.load(path)
    chosen = {name for name in other if name in given and not _is_chosen(name, config, job)}
    may_change = {*may_change, *chosen}
    tops = {name: name.partition(".")[0] for name in given}
    paths = [n for n in given if "." in n and key_marks(n).role is Role.PATH and tops[n] not in may_change]
    for name in given:
        if name not in (key, *paths) and tops[name] not in may_change and not _is_chosen(name, config, job):
            can = ", ".join(sorted(may_change))
            raise ConfigError(f"{name}: cannot be changed with {key}=... (allowed: {can}, and paths as in data.root)")
    config = _checked(path, config, job)
    task = config["task"].get("name") if isinstance(config["task"], dict) else config["task"]
    if task not in tasks:
        raise ConfigError(f"{key}: got '{folder}', must be the folder of a training run (its task is {task!r})")
    config = _with_paths(_with_saved_paths(Path(folder), config), job.config, paths, key)
    # Never the saved values: the user must confirm with each command
    found = config | {name: job.config[name] for name in {*tops.values(), *COMMAND_ONLY} & may_change}
    _check_plugins(key, found, config["plugins"], job.config["plugins"])
    return found


def _config_file(folder: str, key: str) -> Path:
    """Return the path of the config in a run folder; ConfigError if the folder is none, or that of an ensemble."""
    path = Path(folder) / _CONFIG
    if is_ensemble(Path(folder), key=key):
        raise ConfigError(f"{key}: got '{folder}', an ensemble; expected one training run, such as one of its members")
    if not user_paths.is_file(path, key=key):
        sweep = user_paths.is_file(path.with_name("sweep.yaml"), key=key)
        why = "name one of the runs in it" if sweep else f"it has no {_CONFIG}"
        raise ConfigError(f"{key}: got '{folder}', must be a run folder ({why})")
    return path


def _check_plugins(key: str, config: Mapping[str, Any], saved: Sequence[str], given: Collection[str]) -> None:
    """Raise ConfigError if a component of a run is in none of the `given` plugins, but in one that the run had."""
    again = [name for name in saved if name not in given]
    groups = {kind: value for kind, value in config.items() if isinstance(value, Mapping)} if again else {}
    for kind, value in groups.items():
        for name in [value["name"]] if "name" in value else value:
            if name not in (*names(kind), *(path.stem for path in yaml_files(conf_folder() / kind))):
                if again == [MAIN]:
                    raise ConfigError(f"{key}: this run has {kind}={name} of a notebook or script; call runner there")
                raise ConfigError(
                    f"{key}: this run has {kind}={name} of plugins=[{','.join(again)}], which must be given again"
                )


def _is_chosen(name: str, config: Any, job: Job) -> bool:
    """Return True if a command chooses the option of a group that a saved run has: it need not, but may."""
    saved = config.get(name) if isinstance(config, dict) and name not in SETTINGS else None
    return isinstance(saved, dict) and "name" in saved and saved["name"] == job.config[name].get("name")


def _checked(path: Path, config: Any, job: Job) -> dict[str, Any]:
    """Return a saved config, completed; raises ConfigError if it is none of this version."""
    if (
        not isinstance(config, dict)
        or not _KEYS_OF_EVERY_VERSION.issubset(config)
        or not config.keys() <= job.config.keys()
    ):
        raise ConfigError(f"{path}: is not a config of this version of runner")
    found = completed(config)
    if missing := [name for name in job.config if name not in found]:
        raise ConfigError(f"{path}: {missing[0]}: missing, and every version of runner writes it")
    for name, like in job.config.items():
        _check_saved(path, name, found[name], like)
    return found


def _with_paths(config: dict[str, Any], given: dict[str, Any], keys: Collection[str], what: str) -> dict[str, Any]:
    """Return a saved config with the paths that a command gives."""
    ours, theirs = _path_holders(config), _path_holders(given)
    for key in keys:
        if key not in ours:
            known = ", ".join(sorted(ours)) or "none"
            raise ConfigError(f"{key}: cannot be changed with {what}=... (the run has no such path; it has {known})")
        holder, name = ours[key]
        there, same = theirs[key]
        holder[name] = there[same]
    return config


def _path_holders(config: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """Return where a config holds the paths of its components: by key, the mapping and the name in it."""
    groups = [key for key, value in config.items() if key not in SETTINGS and key not in GROUPS and value]
    found = marked_keys(config, groups)
    return {key: (holder, name) for holder, name, key, marks in found if marks.role is Role.PATH}


def _with_saved_paths(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a saved run with relative paths of its data as they were then, where that place exists."""
    paths = read_environment(folder).get(PATHS)
    found = {**config, "data": dict(config["data"])}
    for key, path, _ in list(data_paths(found)):
        saved = paths.get(key) if isinstance(paths, dict) else None
        if isinstance(saved, str) and not path.is_absolute() and user_paths.exists(saved, key=key):
            found["data"][key.removeprefix("data.")] = saved
    return found


def holds_same_run(folder: Path, job: Job) -> bool:
    """Return True if a folder holds the run of a job, on whatever data.

    A trial of a sweep is known by the hash of its config, which omits paths, device, workers and logging; the name of
    the folder tells the hash of one whose config is lost. The folder of any other run must hold an equal config; only
    paths of the data may differ, if its result says which data they were. Raises ConfigError if it cannot be read.
    """
    named = same_name(folder.name, job.hash8)
    if named or job.is_trial:
        found = saved_hash(folder, job.config)
        return found == hash8(job.config) if found else named
    saved = plain_yaml.load(folder / _CONFIG)
    if same_config(saved, job.config):
        return True
    moved = _with_paths_of(saved, job.config) if data_of(folder) is not None else saved
    return same_config(moved, job.config)


def saved_hash(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the hash of the config in a folder, None if it is missing or no config; `config` names the plugins."""
    path = folder / _CONFIG
    try:
        state = user_paths.status(path)
    except ConfigError:
        return None
    if state is None:
        return None
    return _hash_of(path, state.st_mtime_ns, state.st_size, tuple(config["plugins"]))


@lru_cache(maxsize=1 << 16)
def _hash_of(path: Path, changed: int, size: int, plugins: tuple[str, ...]) -> str | None:
    """Return the hash of the config in a file of this state, None if it is none."""
    try:
        saved = completed(plain_yaml.load(path))
        return hash8({**saved, "plugins": list(plugins)})
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _with_paths_of(saved: Any, config: Mapping[str, Any]) -> Any:
    """Return a saved config with the paths of the data that another config has, if both read the same kind of data."""
    data = saved.get("data") if isinstance(saved, dict) else None
    if not isinstance(data, dict) or data.get("name") != config["data"]["name"]:
        return saved
    ours = {key.removeprefix("data.") for key, _, _ in data_paths(config)} & data.keys()
    return {**saved, "data": {**data, **{knob: config["data"][knob] for knob in ours}}}


def _check_saved(path: Path, key: str, value: Any, like: Any) -> None:
    """Check the form of one key of a saved config, which the user may have edited; assembly checks the rest."""
    if key in SETTINGS:
        check(f"{path}: {key}", value, SETTINGS[key])
    elif not isinstance(value, dict):
        raise wrong(f"{path}: {key}", value, "a mapping {a: b}")
    elif "name" in like:
        check(f"{path}: {key}.name", value.get("name"), str)
    elif strange := [part for part in value.values() if not isinstance(part, dict)]:
        raise wrong(f"{path}: {key}", strange[0], "a mapping {a: b}")
