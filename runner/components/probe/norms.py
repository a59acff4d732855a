"""Norms of many tensors, on the device, and what they say on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WHOLE = "_global"  # all tensors together


@torch.no_grad()
def norms(tensors: Sequence[Tensor], order: int = 2) -> Tensor:
    """Return the norm of each tensor (n,), in at least float32."""
    half = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)
    return torch.stack(torch._foreach_norm(list(tensors), order, dtype=torch.float32 if half else None))


def with_whole(numbers: list[float], order: int = 2) -> list[float]:
    """Return norms with that of all the tensors together at the end."""
    whole = math.hypot(*numbers) if order == 2 else math.fsum(numbers)
    return [*numbers, whole]


def named(group: str, names: Sequence[str], numbers: list[float]) -> dict[str, float]:
    """Return norms (L2) by tag, with that of all the tensors together."""
    return {f"{group}/{name}": norm for name, norm in zip([*names, WHOLE], with_whole(numbers), strict=True)}
