"""Filling the places that a model leaves open for regularizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from runner.engine.parts import Slot, fill, slots
from runner.errors import ConfigError


def fill_all(key: str, model: nn.Module, where: Sequence[str], make: Callable[[], nn.Module]) -> int:
    """Fill every open place of the kinds `where` with a module of its own and return how many there were.

    Raises ConfigError, under the config key `key`, for a kind of place that the model does not have.
    """
    found = [(kind, slots(model, kind)) for kind in dict.fromkeys(where)]
    for kind, places in found:
        if not places:
            raise missing(key, model, kind)
    for _, places in found:
        for name, _slot in places:
            fill(model, name, make())
    return sum(len(places) for _, places in found)


def missing(key: str, model: nn.Module, kind: str) -> ConfigError:
    """Return the error for a kind of place that the model does not have, or that another regularizer has filled."""
    free = sorted({m.where for m in model.modules() if isinstance(m, Slot)})
    return ConfigError(f"{key}: the model has no open place '{kind}' (open places: {', '.join(free) or 'none'})")


def counted(places: int) -> str:
    """Return a number of places in words."""
    return f"{places} place{'s' if places != 1 else ''}"
