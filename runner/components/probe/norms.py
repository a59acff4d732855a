"""Norms of many tensors, on the device, and what they say on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

WHOLE = "_global"  # all tensors together


@torch.no_grad()
def norms(tensors: Sequence[Tensor], order: int = 2) -> list[Tensor]:
    """Return the norm () of each tensor, in at least float32."""
    half = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)
    return list(torch._foreach_norm(list(tensors), order, dtype=torch.float32 if half else None))


def with_whole(numbers: list[float], order: int = 2) -> list[float]:
    """Return norms with that of all the tensors together at the end."""
    whole = math.hypot(*numbers) if order == 2 else math.fsum(numbers)
    return [*numbers, whole]


@lru_cache
def tags(group: str, names: tuple[str, ...]) -> list[str]:
    """Return the tags of the named tensors, and of all together: the same strings each time, which costs least."""
    return [f"{group}/{name}" for name in (*names, WHOLE)]


def named(group: str, names: tuple[str, ...], numbers: list[float]) -> dict[str, float]:
    """Return norms (L2) by tag, with that of all the tensors together."""
    return dict(zip(tags(group, names), with_whole(numbers), strict=True))
