"""Places of knobs in a config, for keys `<group>=<option>.<knob>`, and the knobs that became settings. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_Config = Mapping[str, Any]

# A knob `<group>=<option>.<knob>` that is a setting now
MOVED: dict[str, str] = {
    "model=torchvision.weights": "init_from",
    "model=timm.weights": "init_from",
}


def with_moved(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with knobs that are settings now in their place; null does not replace a setting."""
    for key, setting in MOVED.items():
        group, option, old = place_of(key)
        knobs = knobs_of(config, group, option)
        if knobs is not None and old in knobs:
            value = config.get(setting) if knobs[old] is None else knobs[old]
            kept = {name: each for name, each in knobs.items() if name != old}
            config = {**config, setting: value, group: with_knobs(config[group], option, kept)}
    return config


def with_moved_back(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with settings that were knobs in their old place, for the hashes of older runs."""
    for key, setting in MOVED.items():
        group, option, old = place_of(key)
        if (knobs := knobs_of(config, group, option)) is not None and old not in knobs:
            value = config.get(setting)
            kept = {name: each for name, each in config.items() if name != setting}
            config = {**kept, group: with_knobs(config[group], option, {**knobs, old: value})}
    return config


def place_of(key: str) -> tuple[str, str, str]:
    """Return group, option and knob of a key of `ADDED` or `RENAMED`; for a setting, option and knob are empty."""
    group, _, rest = key.partition("=")
    option, _, knob = rest.partition(".")
    return group, option, knob


def knobs_of(config: _Config, group: str, option: str) -> Mapping[str, Any] | None:
    """Return the knobs of an option in a config, None if it is not chosen."""
    values = config.get(group)
    if not isinstance(values, Mapping):
        return None
    found = values if values.get("name") == option else None if "name" in values else values.get(option)
    return found if isinstance(found, Mapping) else None


def with_knobs(values: Mapping[str, Any], option: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's values with other knobs of an option."""
    return dict(knobs) if values.get("name") == option else {**values, option: dict(knobs)}
