"""Gradient descent, plain and with momentum (torch.optim.SGD); g is the gradient.

`weight_decay` adds `weight_decay * w` to g: L2 regularization. For plain SGD this equals decoupled weight decay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim.sgd import sgd as torch_sgd

from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import HalfOpenUnit

# Size of the tensor on which a fused step is tried: larger than any CPU vector register
_TRIAL_SIZE = 256


@register("optim")
def sgd(groups: Groups, fused: bool | None) -> Optimizer:
    """Return stochastic gradient descent: `w <- w - lr * g`."""
    parts = groups.param_groups()
    return SGD(parts, lr=groups.lr, fused=_fused_where_it_works(fused, parts))


@register("optim")
def momentum(groups: Groups, fused: bool | None, *, momentum: HalfOpenUnit) -> Optimizer:
    """Return SGD with heavy-ball momentum: `v <- momentum * v + g; w <- w - lr * v` from v = 0 (Polyak 1964)."""
    parts = groups.param_groups()
    return _with_velocities(SGD(parts, lr=groups.lr, momentum=momentum, fused=_fused_where_it_works(fused, parts)))


@register("optim")
def nesterov(groups: Groups, fused: bool | None, *, momentum: HalfOpenUnit) -> Optimizer:
    """Return SGD with Nesterov's momentum: `v <- momentum * v + g; w <- w - lr * (g + momentum * v)`.

    Nesterov 1983 in the form of Sutskever et al. 2013. With `momentum` 0 it is `sgd`.
    """
    parts = groups.param_groups()
    fused = _fused_where_it_works(fused, parts)
    return _with_velocities(SGD(parts, lr=groups.lr, momentum=momentum, nesterov=momentum > 0, fused=fused))


def _with_velocities(optimizer: SGD) -> SGD:
    """Create all velocities as zeros before the first step; that step gives the same weights.

    Torch's fused step creates them from uninitialized memory, and leaves them so if a loss scaler skips that step
    (torch 2.11 to 2.15).
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _fused_where_it_works(fused: bool | None, parts: Sequence[Mapping[str, Any]]) -> bool | None:
    """Return `fused`, or None where torch's fused step would leave weights unchanged."""
    kinds = {(parameter.device.type, parameter.dtype) for part in parts for parameter in part["params"]}
    return fused if all(fused_step_works(*kind) for kind in kinds) else None


@cache
def fused_step_works(device: str, dtype: torch.dtype) -> bool:
    """Return True if torch's fused SGD updates every element of a tensor of this type on a device.

    On a CPU it skips most of a tensor in half precision up to torch 2.13 (pytorch/pytorch#191763).
    """
    if device != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return True
    weight, one = torch.zeros(_TRIAL_SIZE, dtype=dtype), torch.ones(_TRIAL_SIZE, dtype=dtype)
    options: dict[str, Any] = {"weight_decay": 0.0, "momentum": 0.0, "lr": 1.0, "dampening": 0.0}
    torch_sgd([weight], [one], [None], fused=True, nesterov=False, maximize=False, **options)
    return torch.equal(weight, -one)
