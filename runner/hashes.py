"""Hashes of configs: equal for the same experiment, whatever its paths, device, workers and logging. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from runner.keys import experiment
from runner.numerics import stripped

# The entry of environment.json with `content_of` the run's config
CONTENT = "config"
# Keys that a user may edit in a saved config without changing what it is the config of. Never change it.
_NOT_IN_CONTENT = (
    *("outputs", "name", "sweep", "resume", "run", "runs", "note", "plugins", "device", "threads", "log_every"),
    *("figures", "test", "probe", "resume_numerics", "resume_data", "rerun", "hydra", "seed"),
)


def hash8(config: Mapping[str, Any]) -> str:
    """Return the hash of a configuration and its seed: only keys that change the numbers count."""
    return digest([stripped(experiment(config)), config["seed"]])


def group_hash(config: Mapping[str, Any]) -> str:
    """Return the hash of a configuration, equal for all its seeds."""
    return digest(stripped(experiment(config)))


def content_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return seed and digest of a run's config: equal until a value that its numbers depend on is edited.

    The digest follows neither roles nor later keys, so that it never changes for an old run. Never change it.
    """
    kept = {key: value for key, value in config.items() if key not in _NOT_IN_CONTENT}
    data = config.get("data")
    if isinstance(data, Mapping):
        # The data are known by their fingerprint, wherever they lie
        kept["data"] = {knob: value for knob, value in data.items() if knob == "name" or not isinstance(value, str)}
    return {"seed": config.get("seed"), "digest": digest(kept)}


def digest(value: Any) -> str:
    """Return the first 8 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(_canonical(value), separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _canonical(value: Any) -> Any:
    """Return a value in a canonical form, the same for equal values.

    Keys are sorted, but not those of a pick-many group, whose order is the order of work; 1.0 is 1.
    """
    if isinstance(value, Mapping):
        items = [[str(key), _canonical(item)] for key, item in value.items()]
        ordered = all(isinstance(item, Mapping) for item in value.values())
        return items if ordered else dict(sorted(items))
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
