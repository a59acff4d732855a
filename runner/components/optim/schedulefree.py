"""Schedule-free AdamW: an average of the iterates in place of a falling learning rate."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.components.optim.adaptive import pair
from runner.components.optim.groups import NoDecay, Rules, groups
from runner.components.optim.moments import gather
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Pair, Positive, Range

Shares = Annotated[
    list[HalfOpenUnit],
    Pair("two numbers [share of the average, above 0; mean of g squared]", first=Range(0, open_low=True)),
]


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
            y, gradients, (z, v) = gather(self, group, z=torch.clone, exp_avg_sq=torch.zeros_like)
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
            c = rate**2 / group["squares"] if rate else 0.0  # a rate of 0 from the first step on moves nothing
            torch._foreach_add_(z, d, alpha=-rate)
            torch._foreach_lerp_(y, z, c)
            torch._foreach_add_(y, d, alpha=-rate * (1 - c) * (1 - a))

    @torch.no_grad()
    def averaged(self) -> dict[Tensor, Tensor]:
        """Return x for each tensor that has been stepped: `x = z + (y - z) / a`."""
        found: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            y = [p for p in group["params"] if p in self.state]
            if y:
                x = torch._foreach_lerp([self.state[p]["z"] for p in y], y, 1 / group["betas"][0])
                found.update(zip(y, x, strict=True))
        return found


@register("optim")
def schedulefree(
    model: nn.Module,
    *,
    lr: Positive,
    betas: Shares,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return schedule-free AdamW (arXiv 2405.15682, algorithm 1); take it with `scheduler=constant`, warm-up included.

    Evaluation should read its averaged weights: `average=schedulefree`. Weight decay acts at y. A first
    beta of 0 would make y the last iterate and leave nothing to average.
    """
    a, b = pair(betas)
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    shared = {"lr": lr, "betas": (a, b), "eps": eps, "weight_decay": weight_decay, "step": 0, "squares": 0.0}
    return ScheduleFree(parts, shared)
