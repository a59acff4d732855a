"""`~` in the paths of a config. A shell expands it in few places of the command line, and never in a file."""

from __future__ import annotations

from typing import Any

from runner.errors import ConfigError, wrong
from runner.keys import key_marks, marked_keys
from runner.numerics import renamed_value
from runner.user_folders import expand_home


def expand_paths(config: dict[str, Any]) -> None:
    """Replace a leading `~` or `~user` by the home folder in each path; ConfigError if there is no such user.

    Paths that the config keeps as written (`FilePath(expand=False)`) are only checked.
    """
    # Few keys have a `~`, and the marks of the other components need not be read
    tildes = [key for key, value in config.items() if _holds_tilde(value)]
    for holder, name, key, marks in marked_keys(config, tildes):
        if marks.path:
            path = expanded(key, holder[name])
            holder[name] = path if marks.path.expand else holder[name]


def as_in_config(key: str, value: Any) -> Any:
    """Return the value that a config has at a key when the command line gives `value`."""
    mark = key_marks(key).path
    if mark is None:
        return renamed_value(key, value)
    path = expanded(key, value)
    return path if mark.expand else value


def expanded(key: str, value: Any) -> Any:
    """Return a path, or each path of a list, with `~` replaced; other values stay as they are."""
    if isinstance(value, list):
        return [expanded(key, each) for each in value]
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    try:
        return str(expand_home(value))
    except ConfigError as error:
        raise wrong(key, value, f"a path ({error})") from error


def _holds_tilde(value: Any) -> bool:
    """Return True if a value contains a text that begins with `~`."""
    if isinstance(value, dict):
        return any(map(_holds_tilde, value.values()))
    if isinstance(value, list):
        return any(map(_holds_tilde, value))
    return isinstance(value, str) and value.startswith("~")
