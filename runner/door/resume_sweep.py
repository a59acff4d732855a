"""`resume=<sweep folder>`: read the command of a sweep from its folder and run it again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runner import plain_yaml, user_paths
from runner.door.arguments import Arguments
from runner.door.compose import quote
from runner.door.folders import SUBDIR
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, parse_override
from runner.door.weights_identity import accept_earlier, found_weights
from runner.errors import ConfigError, wrong
from runner.expand_user import expanded
from runner.key_history import FORMER_DEFAULTS
from runner.keys import key_marks, settings_with
from runner.numerics import completed
from runner.passwords import HIDDEN, masked_word
from runner.plain_yaml import check_interpolations
from runner.roles import Role
from runner.trackers.command_line import goes_online

_FILE = "sweep.yaml"
# Keys that follow from the folder itself
_PLACE = ("hydra.sweep.dir", "hydra.mode", "outputs")
# What each command asks for anew
_ASKED_ANEW = ("rerun",)
# Passwords in its URL are not saved
_STORAGE = "hydra.sweeper.storage"
# A file must not import code
_CODE = "plugins"


def save_command(folder: Path, conf: Conf, given: Sequence[ParsedOverride]) -> None:
    """Write the command of a sweep into its folder; plugins are only named, because a resume must give them again."""
    # Late: this module is imported for each command line
    from runner.engine.saving.storage import write_atomic

    again = [each for each in given if each.key == _CODE or goes_online(each.key, each.value)]
    words = [masked_word(each.typed) for each in given if each.key not in (*_PLACE, *_ASKED_ANEW) and each not in again]
    kept = {
        "overrides": words,
        "config_name": conf.primary,
        "give_again": [
            *(each.typed for each in again),
            *(f"--config-dir={path}" for path in conf.folders[1:] if path not in conf.more),
        ],
        "cwd": user_paths.start_folder() or "",
        # They may be gone when the sweep is resumed
        **({"weights": weights} if (weights := found_weights()) else {}),
    }
    write_atomic(folder / _FILE, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode())


def sweep_command(arguments: Arguments) -> Arguments:
    """Return the saved command line for `resume=<sweep folder>`; any other command line stays as it is."""
    given = {word.lstrip("+").partition("=")[0]: word for word in arguments.overrides}
    asked = parse_override(given["resume"]).value if "resume" in given else None
    if asked is None:
        return arguments
    folder = Path(expanded("resume", str(asked)))
    if not user_paths.is_file(folder / _FILE, key="resume"):
        if arguments.multirun:
            raise wrong("resume", str(asked), f"the folder of a sweep, because of -m (it has no {_FILE})")
        return arguments
    others = {key: word for key, word in given.items() if key != "resume"}
    execution = settings_with(Role.EXECUTION)
    for key, word in others.items():
        if (
            key not in (*execution, _STORAGE)
            and not re.fullmatch(r"hydra/launcher|hydra\.launcher\..*|hydra\.sweeper\.stop\..*", key)
            and not _is_data_path(key)
            and not goes_online(key, word.partition("=")[2])
        ):
            can = ", ".join(sorted(execution))
            raise ConfigError(
                f"{key}: cannot be changed with resume=... "
                f"(of a sweep: {can}, hydra.launcher.*, hydra.sweeper.stop.*, {_STORAGE}, paths as in data.root)"
            )
    kept = _read_command(folder / _FILE)
    for word in kept["give_again"]:
        option = word.startswith("--")
        missing = arguments.config_dir is None if option else word.lstrip("+").partition("=")[0] not in given
        if missing:
            raise ConfigError(f"resume: this sweep was started with {word}, which must be given again")
    words = [word for word in kept["overrides"] if word.lstrip("+").partition("=")[0] not in others]
    words = [_as_then(_with_password(word), kept.get("cwd", "")) for word in words]
    words += _former_defaults(folder, words)
    accept_earlier(kept.get("weights", {}))
    return arguments._replace(
        overrides=(*words, *others.values(), *_place_of(folder)), multirun=True, config_name=kept["config_name"]
    )


def _with_password(word: str) -> str:
    """Return a saved word for a database whose password the driver knows; raises ConfigError if it does not."""
    if not word.lstrip("+").startswith(f"{_STORAGE}=") or f":{HIDDEN}@" not in word:
        return word
    known = os.environ.get("PGPASSWORD") or user_paths.is_file(
        expanded("PGPASSFILE", os.environ.get("PGPASSFILE", "~/.pgpass"))
    )
    if "postgresql" in word and known:
        return word.replace(f":{HIDDEN}@", "@")
    raise ConfigError(
        f"resume: the password of {_STORAGE} is not saved; give {_STORAGE}=... again, "
        "or leave it out of the URL and keep it in ~/.pgpass or PGPASSWORD"
    )


def _place_of(folder: Path) -> list[str]:
    """Return the words that put a sweep where it is, and its notes into the notebook there."""
    above = Path(user_paths.absolute(folder)).parent
    outputs = [f"outputs={quote(folder.parent.parent)}"] if above.name == "sweeps" and folder.name else []
    return [*outputs, f"hydra.sweep.dir={quote(folder)}"]


def _former_defaults(folder: Path, words: Sequence[str]) -> list[str]:
    """Return words for the defaults that have changed since a sweep began, as its trials have them."""
    given = {word.lstrip("+").partition("=")[0] for word in words}
    wanted = {key: value for key, value in FORMER_DEFAULTS.items() if key not in given}
    trials = _configs_below(folder)
    for path in trials:
        if not wanted:
            break
        config = plain_yaml.load(path)
        known = completed(config) if isinstance(config, dict) else {}
        wanted = {key: value for key, value in wanted.items() if _has(known, key, value)}
    return [f"{key}={json.dumps(value)}" for key, value in wanted.items()] if trials else []


def _configs_below(folder: Path) -> list[Path]:
    """Return the configs of a sweep's trials, which may be in folders of their own below it."""
    found = [Path(place) / "config.yaml" for place, _, names in user_paths.walk(folder) if "config.yaml" in names]
    return sorted(path for path in found if user_paths.is_file(path))


def _has(config: Mapping[str, Any], key: str, value: Any) -> bool:
    """Return True if a saved config, completed, has this value."""
    group, _, knob = key.partition(".")
    knobs = config.get(group)
    return isinstance(knobs, dict) and knob in knobs and knobs[knob] == value


def _is_data_path(key: str) -> bool:
    """Return True if a key says where the data of the trials lie."""
    return key.startswith("data.") and key_marks(key).role is Role.PATH


def _as_then(word: str, cwd: str) -> str:
    """Return a saved word with a relative path as the sweep's first command meant it, if that exists.

    This concerns the data and the storage of a search.
    """
    key = word.lstrip("+").partition("=")[0]
    if not cwd or not (_is_data_path(key) or key == _STORAGE) or (parsed := parse_override(word)).swept:
        return word
    value = parsed.value
    start = re.match(r"sqlite:///|(?!.*://)", value) if isinstance(value, str) else None
    if not start or value.removeprefix(start[0]).startswith(("~", "/")):
        return word
    there = Path(cwd) / value.removeprefix(start[0])
    return f"{key}={quote(f'{start[0]}{there}')}" if user_paths.exists(there, key=key) else word


def _read_command(path: Path) -> dict[str, Any]:
    """Return the saved command of a sweep; raises ConfigError if its form is not that of `save_command`."""
    kept = plain_yaml.load(path)
    fields = {"overrides": list, "config_name": str, "give_again": list}
    # Older versions wrote no working folder, and most sweeps start from no weights
    optional = {"cwd": str, "weights": dict}
    if not isinstance(kept, dict) or {**optional, **{k: type(v) for k, v in kept.items()}} != {**fields, **optional}:
        raise ConfigError(f"{path}: is not a sweep's command")
    if not all(isinstance(word, str) for word in [*kept["overrides"], *kept["give_again"]]):
        raise ConfigError(f"{path}: is not a sweep's command")
    for word in kept["overrides"]:
        _check_saved_word(path, word)
    return kept


def _check_saved_word(path: Path, word: str) -> None:
    """Reject a saved word that imports code, or that points outside the sweep's folder."""
    key, _, text = word.lstrip("+").partition("=")
    online = goes_online(key, text)
    leads_out = key == SUBDIR and (".." in text.strip("'\"").split("/") or text.lstrip("'\" ").startswith("/"))
    if key in (*_PLACE, _CODE, "resume", "hydra.run.dir") or leads_out or online:
        raise ConfigError(f"{path}: {key}: is allowed on the command line only")
    # The door resolves the references in folders, and none that reads the environment
    if key != SUBDIR:
        check_interpolations(text, f"{path}: {key}")
