"""LAMB: Adam with steps in proportion to the weights of each layer, for large batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.components.optim.adaptive import Betas, pair
from runner.components.optim.groups import NoDecay, Rules, groups
from runner.components.optim.moments import adam_direction
from runner.registry import register
from runner.schema import NonNegative, Positive


class Lamb(Optimizer):
    """`w <- w - lr * |w| / |u| * u` with `u = Adam's direction + weight_decay * w`, norms per tensor.

    The tensors of the `no_decay` groups take Adam's step as it is, as in the authors' code: a bias that starts at zero
    would hardly move otherwise. A zero weight or direction counts as ratio 1.
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
            if not group["name"].startswith("no_decay"):
                torch._foreach_mul_(directions, trust(tensors, directions))
            torch._foreach_add_(tensors, directions, alpha=-group["lr"])


def trust(tensors: list[Tensor], directions: list[Tensor]) -> list[Tensor]:
    """Return `|w| / |u|` for each tensor as a 0-dim tensor, 1 where one of them is zero."""
    w, u = torch.stack(torch._foreach_norm(tensors)), torch.stack(torch._foreach_norm(directions))
    return list(torch.where((w > 0) & (u > 0), w / u, 1.0).unbind())


@register("optim")
def lamb(
    model: nn.Module,
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return LAMB (arXiv 1904.00962, algorithm 2), the layer-wise ratio only where weight decay is not excluded."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return Lamb(parts, {"lr": lr, "betas": pair(betas), "eps": eps, "weight_decay": weight_decay})
