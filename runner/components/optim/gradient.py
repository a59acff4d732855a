"""Gradient descent and its momentum forms (torch.optim.SGD): `w - lr * g`, a step against the gradient.

`weight_decay` adds `weight_decay * w` to the gradient: L2 regularization, which for plain SGD is the same as decay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.sgd import sgd as torch_sgd

from runner.components.optim.groups import NoDecay, Rules, groups
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Positive

WIDE = 256  # numbers, more than any processor takes at once


@register("optim")
def sgd(
    model: nn.Module, fused: bool | None, *, lr: Positive, weight_decay: NonNegative, no_decay: NoDecay, rules: Rules
) -> Optimizer:
    """Return stochastic gradient descent: `w <- w - lr * g`."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return SGD(parts, lr=lr, fused=where_it_moves(fused, parts))


@register("optim")
def momentum(
    model: nn.Module,
    fused: bool | None,
    *,
    lr: Positive,
    momentum: HalfOpenUnit,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return SGD with a heavy ball: `v <- momentum * v + g; w <- w - lr * v` (Polyak 1964; v starts as the first g)."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return at_rest(SGD(parts, lr=lr, momentum=momentum, fused=where_it_moves(fused, parts)))


@register("optim")
def nesterov(
    model: nn.Module,
    fused: bool | None,
    *,
    lr: Positive,
    momentum: HalfOpenUnit,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return SGD with Nesterov's momentum: `v <- momentum * v + g; w <- w - lr * (g + momentum * v)`.

    Nesterov 1983 in the form of Sutskever et al. 2013. With `momentum` 0 it is `sgd`.
    """
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    fused = where_it_moves(fused, parts)
    return at_rest(SGD(parts, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused))


def at_rest(optimizer: SGD) -> SGD:
    """Return an optimizer whose velocities are there, and zero, before the first step, which so becomes the same.

    Torch's fused step would make them itself, of memory that nobody has written, and leave them so where a loss scaler
    holds that step back (torch 2.11 to 2.15).
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def where_it_moves(fused: bool | None, parts: Sequence[Mapping[str, Any]]) -> bool | None:
    """Return `fused`, or None where torch's fused step would leave tensors as they are."""
    kinds = {(parameter.device.type, parameter.dtype) for part in parts for parameter in part["params"]}
    return fused if all(moves(*kind) for kind in kinds) else None


@cache
def moves(device: str, dtype: torch.dtype) -> bool:
    """Tell whether torch's fused step moves tensors of a type on a device.

    On a CPU it passes over most of a tensor in half precision up to torch 2.13 (pytorch/pytorch#191763).
    """
    if device != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return True
    weight, one = torch.zeros(WIDE, dtype=dtype), torch.ones(WIDE, dtype=dtype)
    options: dict[str, Any] = {"weight_decay": 0.0, "momentum": 0.0, "lr": 1.0, "dampening": 0.0}
    torch_sgd([weight], [one], [None], fused=True, nesterov=False, maximize=False, **options)
    return torch.equal(weight, -one)
