"""Logged values: tensors and numbers on the device, what they become on the host, and how a checkpoint keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.engine.contracts import Numbers


def as_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values as a checkpoint takes them."""
    return {tag: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for tag, v in values.items()}


def as_arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values from a checkpoint."""
    return {tag: v.numpy() if isinstance(v, Tensor) else v for tag, v in values.items()}


def tensors_of(value: Any) -> Sequence[Tensor]:
    """Return the tensors of a logged value."""
    return (value,) if isinstance(value, Tensor) else value.tensors if isinstance(value, Numbers) else ()


def told(values: Mapping[str, Any], host: Iterator[Any]) -> dict[str, Any]:
    """Return what is to be logged; `host` gives in turn what the tensors are there."""
    found: dict[str, Any] = {}
    for tag, value in values.items():
        if isinstance(value, Tensor):
            found[tag] = next(host)
        elif isinstance(value, Numbers):
            found.update(value.say([next(host) for _ in value.tensors]))
        else:
            found[tag] = plain(value)
    return found


def plain(value: Any) -> Any:
    """Return any kind of number as a float, the rest as it is."""
    return float(value) if isinstance(value, Real) else value
