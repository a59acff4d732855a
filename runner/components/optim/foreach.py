"""LAMB and Lion, which torch does not have; a step is a few `torch._foreach` calls per group.

Muon and the schedule-free optimizers use `gather`, `adam_direction` and `decay` too. No function waits for the device.
Parameters without a gradient, such as frozen ones, are skipped: their weights and states do not change.

The package's docstring defines g, t, m, v, a and b.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, zeros_like
from torch.optim import Optimizer

from runner.components.optim.adaptive import Betas, pair
from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import Positive


def gather(
    optimizer: Optimizer, group: dict[str, Any], **states: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
    """Return the parameters of a group that have a gradient, the gradients, and a list for each named state.

    A new state is made from the parameter by the given function (`torch.zeros_like`, `torch.clone`).
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
    """Count a step of each parameter and return the counts, 1 for the first; the state keeps them, on the CPU."""
    counts = []
    for p in tensors:
        step = optimizer.state[p].setdefault("step", torch.zeros(()))
        step += 1
        counts.append(int(step))
    return counts


class Lamb(Optimizer):
    """LAMB: Adam's direction, scaled per parameter; see `lamb`."""

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
    """Return LAMB, Adam with layer-wise step sizes (You et al. 2020, arXiv 1904.00962, algorithm 2).

    `u = m / (1 - a ** t) / (sqrt(v / (1 - b ** t)) + eps) + weight_decay * w; w <- w - lr * |w| / |u| * u`, with L2
    norms of each parameter. The trust ratio |w| / |u| is 1 where a norm is zero, and for the parameters in `no_decay`,
    as in the authors' code: a bias that starts at zero would hardly move otherwise.
    """
    settings = {"lr": groups.lr, "betas": pair(betas), "eps": eps, "weight_decay": groups.weight_decay}
    return Lamb(groups.param_groups(), settings)


class Lion(Optimizer):
    """Lion: the sign of a momentum; see `lion`."""

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
    """Return Lion: each step changes every weight by `lr` (Chen et al. 2023, arXiv 2302.06675, program 1).

    `w <- w - lr * (sign(a * m + (1 - a) * g) + weight_decay * w)`, then `m <- b * m + (1 - b) * g`, with
    `betas: [a, b]`. The weight decay is decoupled.
    """
    settings = {"lr": groups.lr, "betas": pair(betas), "weight_decay": groups.weight_decay}
    return Lion(groups.param_groups(), settings)
