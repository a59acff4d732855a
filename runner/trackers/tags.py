"""Tags and configs in the forms that other trackers take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NOT_PLAIN = re.compile(r"[^\w\-. :/]")
_LENGTH = 250


def plain_tag(tag: str) -> str:
    """Return a tag with `_` for the characters that MLflow does not take."""
    return _NOT_PLAIN.sub("_", tag)[:_LENGTH]


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
