"""What every part of assembly reads: the config as plain mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.registry import build

Config = Mapping[str, Any]


def many(kind: str, config: Config, **context: Any) -> list[Any]:
    """Build the parts of a pick-many group in the order given."""
    chosen = config[kind] or {}
    return [
        build(kind, {"name": name, **(knobs or {})}, key=f"{kind}.{name}", **context) for name, knobs in chosen.items()
    ]
