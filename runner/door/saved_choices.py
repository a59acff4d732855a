"""The options of a saved run of which a command line changes a path: `resume=<folder> data.root=<folder>`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner import plain_yaml, user_paths
from runner.door.overrides import parse_override
from runner.expand_user import expanded
from runner.keys import key_marks
from runner.roles import Role

# Keys that name the folder of a saved run
_NAMING = ("resume", "run", "extend")
_OPTION = re.compile(r"[A-Za-z0-9_]{1,64}")


def saved_choices(words: Sequence[str]) -> list[str]:
    """Return the choices of a saved run in the groups of which a command line gives a path but no option.

    The command line is checked against these options. The task reads all of the saved config, and says what is wrong
    with it.
    """
    given = {word.lstrip("+").partition("=")[0] for word in words}
    groups = {key.partition(".")[0] for key in given if "." in key and key_marks(key).role is Role.PATH} - given
    config = saved_config_of(words) if groups else None
    found = []
    for group in sorted(groups):
        saved = config.get(group) if isinstance(config, dict) else None
        name = saved.get("name") if isinstance(saved, dict) else None
        if isinstance(name, str) and _OPTION.fullmatch(name):
            found.append(f"{group}={name}")
    return found


def saved_config_of(words: Sequence[str]) -> Any:
    """Return what is in the config of the saved run that a command line names, None if it names no run."""
    given = {word.lstrip("+").partition("=")[0]: word for word in words}
    named = next((key for key in _NAMING if key in given), None)
    if named is None:
        return None
    path = Path(expanded(named, str(parse_override(given[named]).value))) / "config.yaml"
    return plain_yaml.load(path) if user_paths.is_file(path, key=named) else None
