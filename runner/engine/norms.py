"""Norms of many tensors at once, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from runner.engine.contracts import Norms, Numbers

Say = Callable[[list[float]], Mapping[str, float]]


@torch.no_grad()
def norms(tensors: Sequence[Tensor], order: int = 2) -> Tensor:
    """Return the norm of each tensor (n,), in at least float32."""
    half = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)
    return torch.stack(torch._foreach_norm(list(tensors), order, dtype=torch.float32 if half else None))


def taken(asked: Sequence[Norms]) -> Numbers:
    """Return the norms that all have asked for, taken in one call: each kind of call is cold when a probe makes it."""
    tensors = [tensor for each in asked for tensor in each.tensors]
    return Numbers(norms(tensors), partial(said, [(len(each.tensors), each.say) for each in asked]))


def said(parts: Sequence[tuple[int, Say]], numbers: list[float]) -> Mapping[str, float]:
    """Return what so many numbers say to each part, in order."""
    rest, found = iter(numbers), dict[str, float]()
    for count, say in parts:
        found.update(say(list(islice(rest, count))))
    return found
