"""What our own optimizers share: state per tensor, and Adam's direction, in a few calls for all tensors at once.

Nothing here reads a number from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, zeros_like
from torch.optim import Optimizer


def gather(
    optimizer: Optimizer, group: dict[str, Any], **states: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    """Return the tensors of a group that have a gradient, the gradients, and a list for each named state.

    A state begins as what its function makes of the tensor (`torch.zeros_like`, `torch.clone`).
    """
    tensors = [p for p in group["params"] if p.grad is not None]
    for p in tensors:
        if not optimizer.state[p]:
            optimizer.state[p] = {name: begin(p) for name, begin in states.items()}
    return tensors, [p.grad for p in tensors], [[optimizer.state[p][name] for p in tensors] for name in states]


def counts(optimizer: Optimizer, tensors: list[Tensor]) -> list[int]:
    """Return the number of the step that each tensor is in, 1 for the first; it is kept in its state, on the CPU."""
    found = []
    for p in tensors:
        step = optimizer.state[p].setdefault("step", torch.zeros(()))
        step += 1
        found.append(int(step))
    return found


def adam_direction(optimizer: Optimizer, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of a group and `m / (sqrt(v) + eps)` for each, bias-corrected; the moments move on."""
    (a, b), eps = group["betas"], group["eps"]
    tensors, gradients, (m, v) = gather(optimizer, group, exp_avg=zeros_like, exp_avg_sq=zeros_like)
    if not tensors:
        return [], []
    steps = counts(optimizer, tensors)
    torch._foreach_lerp_(m, gradients, 1 - a)
    torch._foreach_mul_(v, b)
    torch._foreach_addcmul_(v, gradients, gradients, 1 - b)
    denominators = torch._foreach_sqrt(v)
    torch._foreach_div_(denominators, [(1 - b**t) ** 0.5 for t in steps])
    torch._foreach_add_(denominators, eps)
    directions = torch._foreach_div(m, [1 - a**t for t in steps])
    torch._foreach_div_(directions, denominators)
    return tensors, list(directions)


def decay(tensors: list[Tensor], group: dict[str, Any]) -> None:
    """Shrink tensors by `lr * weight_decay`, decoupled from the gradient (arXiv 1711.05101)."""
    if group["weight_decay"]:
        torch._foreach_mul_(tensors, 1 - group["lr"] * group["weight_decay"])
