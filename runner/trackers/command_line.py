"""The trackers that a run has: in sweeps only those that the command line names, and online only where it says so."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from runner.errors import ConfigError

_GROUP = "tracker"
_ONLINE = "online"
_KEY = re.compile(r"tracker\.\w+\.mode")


def with_trackers_asked_for(config: Mapping[str, Any], words: Iterable[str], *, is_trial: bool) -> dict[str, Any]:
    """Return a config whose trackers may run; raises ConfigError if one is online and the words do not say so.

    A trial of a sweep has none unless the words choose or change trackers: a hundred trials are a hundred runs there.
    """
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    if not config.get(_GROUP):
        return dict(config)
    if is_trial and not any(key.partition(".")[0] == _GROUP for key in keys):
        return {**config, _GROUP: {}}
    check_online(config, keys)
    return dict(config)


def check_online(config: Mapping[str, Any], keys: Collection[str]) -> None:
    """Raise ConfigError if a tracker is online and no key of the command line says so."""
    for name, knobs in config[_GROUP].items():
        key = f"{_GROUP}.{name}.mode"
        if isinstance(knobs, Mapping) and knobs.get("mode") == _ONLINE and key not in keys:
            raise ConfigError(
                f"{key}: got '{_ONLINE}'; allowed on the command line only ('tracker=[{name}]' {key}={_ONLINE}), "
                "because a file must not open a connection"
            )


def goes_online(key: str, value: Any) -> bool:
    """Return True if a word of the command line lets a tracker open connections; no file may keep such a word."""
    return _KEY.fullmatch(key) is not None and value == _ONLINE
