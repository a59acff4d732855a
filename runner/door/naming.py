"""Names of runs: what differs on the command line, and the hash of the config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner import plain_yaml, user_paths
from runner.errors import ConfigError, StorageError
from runner.hashes import digest, hash8
from runner.keys import key_marks, short_keys
from runner.numerics import completed, stripped
from runner.roles import Role

# Most characters of a folder's name
_MAX_NAME = 100

# Between the words of a name. TensorBoard's list of runs folds a name after a hyphen only, and cuts it elsewhere
_BETWEEN = "-"
# What older versions wrote there
_OLDER = ","

# Keys whose value is a path, of which names show the last part
WEIGHTS = ("init_from", "model.weights")

# Keys that hashes left out before keys had roles. Never change it: it finds trials of old sweeps (`legacy_hash8`)
_LEGACY_UNHASHED = (
    *("outputs", "name", "sweep", "resume", "run", "runs", "note", "plugins", "device", "log_every", "figures", "test"),
    *("data.root", "data.workers", "data.cache", "data.placement", "hydra", "resume_numerics", "resume_data"),
)


def run_name(given: Iterable[tuple[str, Any]]) -> str:
    """Return a folder name from keys and values in the given order, `default` if there are none to name."""
    return _name_of((key, value) for key, value in given if is_named(key))


def _name_of(
    given: Iterable[tuple[str, Any]], short: Mapping[str, str] = MappingProxyType({}), between: str = _BETWEEN
) -> str:
    """Return a folder name from all keys, some of them short, and values but Hydra's own."""
    words = [
        f"{short.get(key, key)}={value_in_name(_last_part(key, value))}"
        for key, value in given
        if not key.startswith("hydra")
    ]
    return _truncate_name(re.sub(r"[^A-Za-z0-9._=,+-]", "-", between.join(words))) or "default"


def _last_part(key: str, value: Any) -> Any:
    """Return the name of the file or folder that weights come from; any other value as it is."""
    return Path(value).name or value if isinstance(value, str) and key in WEIGHTS else value


def is_named(key: str) -> bool:
    """Return True if a key is part of a folder's name; paths and notes, for example, are not."""
    marks = key_marks(key)
    return not marks.unnamed and marks.role is not Role.PATH


def value_in_name(value: Any) -> str:
    """Return a value as a name shows it."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(value_in_name, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float) and float(short := f"{value:.12g}") == value:
        return short
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{value_in_name(item)}" for key, item in value.items())
    return str(value)


def _truncate_name(name: str) -> str:
    """Return a name, cut to a folder name's length, with a hash of the whole name at its end."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 9]}-{digest(name)}"


def legacy_hash8(config: Mapping[str, Any]) -> str:
    """Return the hash of the development versions of 0.1.0 before keys had roles."""
    return digest(_without(stripped(config), _LEGACY_UNHASHED))


def name_in(sweep: Path, name: str, config: Mapping[str, Any], given: Sequence[tuple[str, Any]] = ()) -> str:
    """Return the name of a trial's folder in a sweep: the one by an older version, if that folder exists.

    Args:
        sweep: The folder of the sweep.
        name: The name by this version, `trial_name`.
        config: The config of the trial.
        given: What differs; older versions wrote whole keys, or commas between the words.
    """
    end = f"-{hash8(config)}"
    if not name.endswith(end) or not user_paths.is_dir(sweep, error=StorageError):
        return name
    older_words = [_name_of(given, short, _OLDER) for short in (short_keys([key for key, _ in given]), {})]
    words = [name.removesuffix(end), *(each for each in older_words if each != "default")]
    for older in (f"{each}-{legacy_hash8(config)}" for each in words):
        if user_paths.is_dir(sweep / older, error=StorageError):
            return older
    # Legacy hashes counted most execution settings, which may since have been changed by `resume=`
    folders = trial_folders(user_paths.full(sweep))
    others = (other for each in words for other in folders.get(each, ()) if other != name)
    return next((other for other in others if other.endswith(end) or _is_of(sweep / other, config)), name)


@cache
def trial_folders(sweep: str) -> dict[str, list[str]]:
    """Return the trials in a sweep's folder by their names without hash, as they are on the first call."""
    found: dict[str, list[str]] = {}
    for name in user_paths.listed(sweep, error=StorageError):
        if user_paths.is_dir(Path(sweep, name), error=StorageError):
            found.setdefault(name[:-9], []).append(name)
    return found


def _is_of(trial: Path, config: Mapping[str, Any]) -> bool:
    """Return True if the config in a trial's folder is of the same experiment and seed."""
    try:
        saved = completed(plain_yaml.load(trial / "config.yaml"))
        return hash8(saved) == hash8(config)
    except (ConfigError, KeyError, TypeError, ValueError):
        return False


def _without(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a config without some of its keys, `group.knob` among them, sorted."""
    left_out = set(keys)
    return {
        key: {name: item for name, item in value.items() if f"{key}.{name}" not in left_out}
        if isinstance(value, Mapping)
        else value
        for key, value in sorted(config.items())
        if key not in left_out
    }


def trial_name(given: Sequence[tuple[str, Any]], config: Mapping[str, Any]) -> str:
    """Return the folder name of a trial below its sweep: what differs, in short keys, and the hash of its config."""
    return f"{_name_of(given, short_keys([key for key, _ in given]))}-{hash8(config)}"


def sweep_names(swept: Sequence[str], end: str) -> tuple[str, str]:
    """Return the folder name of a sweep over some keys, and the one by older versions; both have the same end."""
    keys = [key for key in swept if key != "seed"] or swept
    words = "+".join(short_keys(keys).values()), "+".join(swept)
    short, older = (f"{_truncate_name(each) or 'default'}-{end}" for each in words)
    return short, older
