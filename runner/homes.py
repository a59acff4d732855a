"""`~` in the paths of a config: a shell expands it on the command line only in some places, and in a file never."""

from __future__ import annotations

import os
from typing import Any

from runner.errors import wrong

PATHS = ("outputs", "resume", "run", "runs", "task.out", "model.weights")
AT_USE = ("data.root", "data.cache")  # these stay as they are, so that the config says the same on every machine


def expand_homes(config: dict[str, Any]) -> None:
    """Put the home folder in the place of a leading `~` or `~user`; ConfigError where there is no such user."""
    for key in (*PATHS, *AT_USE):
        group, _, knob = key.rpartition(".")
        holder = config.get(group) if group else config
        if isinstance(holder, dict) and knob in holder:
            holder[knob] = at_home(key, holder[knob])


def at_home(key: str, value: Any) -> Any:
    """Return what a config has at a key for a value that was given."""
    if key not in (*PATHS, *AT_USE):
        return value
    path = expanded(key, value)
    return path if key in PATHS else value


def expanded(key: str, value: Any) -> Any:
    """Return a path, or each of a list of them, without `~`; anything else as it is."""
    if isinstance(value, list):
        return [expanded(key, each) for each in value]
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    path = os.path.expanduser(value)  # noqa: PTH111  (a Path's raises RuntimeError where there is no such user)
    if path.startswith("~"):
        raise wrong(key, value, "a path (there is no such user; ./~ is a folder of that name)")
    return path
