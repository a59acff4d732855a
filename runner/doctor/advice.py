"""Overrides that symptoms advise, made from the run's own config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def divided_lr(config: Mapping[str, Any], factor: float) -> list[tuple[str, ...]]:
    """Return the advice to train with the learning rate divided by a factor; none if the optimizer has no rate."""
    rate = config["optim"].get("lr")
    return [(f"optim.lr={rounded(rate / factor)}",)] if isinstance(rate, (int, float)) and rate > 0 else []


def rounded(value: float) -> str:
    """Return a number of two digits, as a command line takes it: `0.0033`, `1e-05`, `500`."""
    return f"{float(f'{value:.2g}'):g}"
