"""Gradient descent and its momentum forms (torch.optim.SGD): `w - lr * g`, a step against the gradient.

`weight_decay` adds `weight_decay * w` to the gradient: L2 regularization, which for plain SGD is the same as decay.
"""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Optimizer

from runner.components.optim.groups import NoDecay, Rules, groups
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Positive


@register("optim")
def sgd(
    model: nn.Module, fused: bool | None, *, lr: Positive, weight_decay: NonNegative, no_decay: NoDecay, rules: Rules
) -> Optimizer:
    """Return stochastic gradient descent: `w <- w - lr * g`."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return SGD(parts, lr=lr, fused=fused)


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
    return SGD(parts, lr=lr, momentum=momentum, fused=fused)


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
    return SGD(parts, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
