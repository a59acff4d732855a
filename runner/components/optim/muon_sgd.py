"""Muon for hidden matrices, SGD for everything else: each at a learning rate of its own, for short runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.components.optim.groups import NoDecay, Rules, groups
from runner.components.optim.moments import decay, gather
from runner.components.optim.muon import hidden, orthogonalized
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Positive, PositiveInt

SMALLEST = 1e-12  # norm that a matrix of zeros is divided by


class MuonSGD(Optimizer):
    """Groups with `orthogonal` take Muon's step, the others that of SGD with Nesterov's momentum.

    Both keep a velocity `v <- momentum * v + g` and look ahead to `g + momentum * v`.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            tensors, gradients, (velocities,) = gather(self, group, momentum_buffer=torch.zeros_like)
            if not tensors:
                continue
            if group["orthogonal"]:
                ahead = look_ahead(gradients, velocities, group["momentum"])
                if group["fixed_norm"]:
                    rescale(tensors)
                else:
                    decay(tensors, group)
                directions = orthogonalized(ahead, group["ns_steps"])
            else:
                if group["weight_decay"]:
                    gradients = list(torch._foreach_add(gradients, tensors, alpha=group["weight_decay"]))
                directions = look_ahead(gradients, velocities, group["momentum"])
            torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def look_ahead(gradients: list[Tensor], velocities: list[Tensor], momentum: float) -> list[Tensor]:
    """Move the velocities on and return where Nesterov's momentum takes the gradients."""
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_add_(velocities, gradients)
    return list(torch._foreach_add(gradients, velocities, alpha=momentum))


def rescale(tensors: list[Tensor]) -> None:
    """Bring each matrix to the norm of one with orthonormal rows, sqrt(rows); one of zeros stays."""
    factors = torch._foreach_norm(tensors)
    torch._foreach_clamp_min_(factors, SMALLEST)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, [len(p) ** 0.5 for p in tensors])
    torch._foreach_mul_(tensors, factors)


@register("optim")
def muon_sgd(
    model: nn.Module,
    *,
    lr: Positive,
    momentum: HalfOpenUnit,
    ns_steps: PositiveInt,
    fixed_norm: bool,
    sgd_lr: Positive,
    sgd_momentum: HalfOpenUnit,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Muon for hidden matrices and kernels, Nesterov's SGD for the rest (Jordan et al. 2024, for CIFAR-10).

    Muon's update has singular values near 1, times `lr`, whatever the gradient's size. With `fixed_norm` each matrix
    is brought to the norm sqrt(rows) before the step: `lr` is then about the share of it that a step replaces, and
    weight decay would do nothing to it. Without, it is decoupled there. For SGD it is L2, as in `nesterov`.
    """
    chosen = hidden(model)
    parts: list[dict[str, Any]] = []
    for group in groups(model, lr=1.0, weight_decay=weight_decay, no_decay=no_decay, rules=rules):
        for word, orthogonal in (("muon", True), ("sgd", False)):
            own = [p for p in group["params"] if (p in chosen) is orthogonal]
            rate, inertia = (lr, momentum) if orthogonal else (sgd_lr, sgd_momentum)
            settings = {"name": f"{word} {group['name']}", "orthogonal": orthogonal, "momentum": inertia}
            if own:
                parts.append({**group, **settings, "params": own, "lr": rate * group["lr"]})
    return MuonSGD(parts, {"lr": lr, "ns_steps": ns_steps, "fixed_norm": fixed_norm})
