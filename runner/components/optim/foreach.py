"""Our own optimizers, in a few `torch._foreach` calls for all tensors of a group: LAMB, Lion, schedule-free AdamW.

`gather`, `adam_direction` and `decay` are the steps that they share with Muon. Nothing here reads a number from the
device. A parameter without gradient, which a frozen one has not, is left out: its weight and state stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, zeros_like
from torch.optim import Optimizer

from runner.components.optim.adaptive import Betas, pair
from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import HalfOpenUnit, Pair, Positive, Range

Shares = Annotated[
    list[HalfOpenUnit],
    Pair("two numbers [share of the average, above 0; mean of g squared]", first=Range(0, open_low=True)),
]


def gather(
    optimizer: Optimizer, group: dict[str, Any], **states: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    """Return the parameters of a group that have a gradient, the gradients, and a list for each named state.

    A state starts as what its function makes of the parameter (`torch.zeros_like`, `torch.clone`).
    """
    tensors = [p for p in group["params"] if p.grad is not None]
    for p in tensors:
        if not optimizer.state[p]:
            optimizer.state[p] = {name: start(p) for name, start in states.items()}
    return tensors, [p.grad for p in tensors], [[optimizer.state[p][name] for p in tensors] for name in states]


def adam_direction(optimizer: Optimizer, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Update Adam's moments; return the parameters of a group and `m / (sqrt(v) + eps)` for each, bias-corrected."""
    (a, b), eps = group["betas"], group["eps"]
    tensors, gradients, (m, v) = gather(optimizer, group, exp_avg=zeros_like, exp_avg_sq=zeros_like)
    if not tensors:
        return [], []
    steps = _count_steps(optimizer, tensors)
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


def _count_steps(optimizer: Optimizer, tensors: list[Tensor]) -> list[int]:
    """Return the number of the step that each parameter takes now, 1 for the first; the state keeps it, on the CPU."""
    found = []
    for p in tensors:
        step = optimizer.state[p].setdefault("step", torch.zeros(()))
        step += 1
        found.append(int(step))
    return found


class Lamb(Optimizer):
    """`w <- w - lr * |w| / |u| * u` with `u = Adam's direction + weight_decay * w`, norms per parameter.

    Parameters that do not decay take Adam's step unscaled, as in the authors' code: a bias that starts at zero would
    hardly move otherwise. The ratio is 1 where weight or direction is zero.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            tensors, directions = adam_direction(self, group)
            if not tensors:
                continue
            if group["weight_decay"]:
                torch._foreach_add_(directions, tensors, alpha=group["weight_decay"])
            if group["decays"]:
                torch._foreach_mul_(directions, _trust_ratios(tensors, directions))
            torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def _trust_ratios(tensors: list[Tensor], directions: list[Tensor]) -> list[Tensor]:
    """Return `|w| / |u|` for each tensor as a 0-dim tensor, 1 where one of them is zero."""
    w, u = torch.stack(torch._foreach_norm(tensors)), torch.stack(torch._foreach_norm(directions))
    return list(torch.where((w > 0) & (u > 0), w / u, 1.0).unbind())


@register("optim")
def lamb(groups: Groups, *, betas: Betas, eps: Positive) -> Optimizer:
    """Return LAMB (arXiv 1904.00962, algorithm 2), the layer-wise ratio only where weight decay is not excluded."""
    settings = {"lr": groups.lr, "betas": pair(betas), "eps": eps, "weight_decay": groups.weight_decay}
    return Lamb(groups.param_groups(), settings)


class Lion(Optimizer):
    """`w <- w - lr * (sign(a * m + (1 - a) * g) + weight_decay * w)`, then `m <- b * m + (1 - b) * g`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            a, b = group["betas"]
            tensors, gradients, (m,) = gather(self, group, exp_avg=zeros_like)
            if tensors:
                decay(tensors, group)
                signs = torch._foreach_sign(torch._foreach_lerp(m, gradients, 1 - a))
                torch._foreach_add_(tensors, signs, alpha=-group["lr"])
                torch._foreach_lerp_(m, gradients, 1 - b)


@register("optim")
def lion(groups: Groups, *, betas: Betas) -> Optimizer:
    """Return Lion: every weight moves by `lr` (arXiv 2302.06675, program 1); weight decay is decoupled."""
    settings = {"lr": groups.lr, "betas": pair(betas), "weight_decay": groups.weight_decay}
    return Lion(groups.param_groups(), settings)


class ScheduleFree(Optimizer):
    """The model holds y, where gradients are taken; `averaged` gives x, which is to be evaluated.

    With Adam's denominator, d = g / (sqrt(v) + eps) + weight_decay * y and r = lr * sqrt(1 - b ** t):
    `z <- z - r * d; x <- (1 - c) * x + c * z; y <- (1 - a) * z + a * x`, c being r squared over the sum of all r
    squared. Only y, z and v are kept, since x follows from y and z.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients at y."""
        for group in self.param_groups:
            a, b = group["betas"]
            y, gradients, (z, v) = gather(self, group, z=torch.clone, exp_avg_sq=zeros_like)
            if not y:
                continue
            group["step"] += 1
            torch._foreach_mul_(v, b)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - b)
            denominators = torch._foreach_sqrt(v)
            torch._foreach_add_(denominators, group["eps"])
            d = torch._foreach_div(gradients, denominators)
            torch._foreach_add_(d, y, alpha=group["weight_decay"])
            rate = group["lr"] * (1 - b ** group["step"]) ** 0.5
            group["squares"] += rate**2
            # Nothing moves while the rate is 0 from the first step on
            c = rate**2 / group["squares"] if rate else 0.0
            torch._foreach_add_(z, d, alpha=-rate)
            torch._foreach_lerp_(y, z, c)
            torch._foreach_add_(y, d, alpha=-rate * (1 - c) * (1 - a))

    @torch.no_grad()
    def averaged(self) -> dict[Tensor, Tensor]:
        """Return x for each parameter that has been stepped: `x = z + (y - z) / a`."""
        found: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            y = [p for p in group["params"] if p in self.state]
            if y:
                x = torch._foreach_lerp([self.state[p]["z"] for p in y], y, 1 / group["betas"][0])
                found.update(zip(y, x, strict=True))
        return found


@register("optim")
def schedulefree(groups: Groups, *, betas: Shares, eps: Positive) -> Optimizer:
    """Return schedule-free AdamW (arXiv 2405.15682, algorithm 1); use it with `scheduler=constant`, warm-up included.

    Evaluation should read its averaged weights: `average=schedulefree`. Weight decay acts at y. A first
    beta of 0 would make y the last iterate and leave nothing to average.
    """
    settings = {"lr": groups.lr, "betas": pair(betas), "eps": eps, "weight_decay": groups.weight_decay}
    return ScheduleFree(groups.param_groups(), {**settings, "step": 0, "squares": 0.0})
