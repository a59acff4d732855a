"""What a run is called: what differs on its command line, and the hashes of its config."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

PLACES = ("outputs", "name", "sweep", "resume", "run", "runs", "data.root")
UNNAMED = (*PLACES, "note", "plugins", "device", "log_every", "figures", "data.workers", "data.cache")
UNHASHED = (*UNNAMED, "test", "data.placement", "hydra")
LONGEST = 100  # characters of a folder's name


def run_name(given: Iterable[tuple[str, Any]], unnamed: Iterable[str] = UNNAMED) -> str:
    """Return a folder name from keys and values in the given order, `default` if none counts."""
    left_out = set(unnamed)
    words = [f"{key}={worded(value)}" for key, value in given if key not in left_out and not key.startswith("hydra")]
    return shortened(re.sub(r"[^A-Za-z0-9._=,+-]", "-", ",".join(words))) or "default"


def worded(value: Any) -> str:
    """Return a value as a name shows it."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(worded, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float) and float(short := f"{value:.12g}") == value:
        return short
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{worded(item)}" for key, item in value.items())
    return str(value)


def shortened(name: str) -> str:
    """Return a name cut to a folder's length, a hash of the whole in place of the rest."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{digest(name)}"


def hash8(config: Mapping[str, Any]) -> str:
    """Return the hash that names a configuration, seed included; paths, device, workers and logging do not count."""
    return digest(without(config, UNHASHED))


def group_hash(config: Mapping[str, Any]) -> str:
    """Return the hash that all seeds of one configuration share."""
    return digest(without(config, (*UNHASHED, "seed")))


def without(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a config without some of its keys, `group.knob` among them, sorted."""
    left_out = set(keys)
    return {
        key: {name: item for name, item in value.items() if f"{key}.{name}" not in left_out}
        if isinstance(value, Mapping)
        else value
        for key, value in sorted(config.items())
        if key not in left_out
    }


def digest(value: Any) -> str:
    """Return the first 8 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(canonical(value), separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def canonical(value: Any) -> Any:
    """Return a value in the one form that equal values share.

    Keys are sorted, but not those of a pick-many group, whose order is the order of work; 1.0 is 1.
    """
    if isinstance(value, Mapping):
        items = [[str(key), canonical(item)] for key, item in value.items()]
        ordered = all(isinstance(item, Mapping) for item in value.values())
        return items if ordered else dict(sorted(items))
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
