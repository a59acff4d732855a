"""Lion: the sign of a momentum."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from runner.components.optim.adaptive import Betas, pair
from runner.components.optim.groups import NoDecay, Rules, groups
from runner.components.optim.moments import decay, gather
from runner.registry import register
from runner.schema import NonNegative, Positive


class Lion(Optimizer):
    """`w <- w - lr * (sign(a * m + (1 - a) * g) + weight_decay * w)`, then `m <- b * m + (1 - b) * g`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients."""
        for group in self.param_groups:
            a, b = group["betas"]
            tensors, gradients, (m,) = gather(self, group, exp_avg=torch.zeros_like)
            if tensors:
                decay(tensors, group)
                torch._foreach_add_(
                    tensors, torch._foreach_sign(torch._foreach_lerp(m, gradients, 1 - a)), alpha=-group["lr"]
                )
                torch._foreach_lerp_(m, gradients, 1 - b)


@register("optim")
def lion(
    model: nn.Module,
    *,
    lr: Positive,
    betas: Betas,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Lion: every weight moves by `lr` (arXiv 2302.06675, program 1); weight decay is decoupled."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return Lion(parts, {"lr": lr, "betas": pair(betas), "weight_decay": weight_decay})
