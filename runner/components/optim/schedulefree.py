"""Schedule-free AdamW and SGD (Defazio et al. 2024, arXiv 2405.15682): the model holds y, `averaged` returns x.

    z <- z - r * d;  x <- (1 - c) * x + c * z;  y <- (1 - a) * z + a * x

d is the direction at y and r its rate; c is r ** 2 over the sum of all r ** 2 so far; a > 0 is the share of the average
in y: with 0, y would be z and x be lost. The state holds z, because x follows from y and z. Evaluation should read the
average x: set `average=schedulefree` and `scheduler=constant`, with or without warm-up.

The package's docstring defines g, t, v and b. No function waits for the device.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, zeros_like
from torch.optim import Optimizer

from runner.components.optim.adaptive import pair
from runner.components.optim.foreach import gather
from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import HalfOpenUnit, Pair, Positive, Range

_Betas = Annotated[
    list[HalfOpenUnit],
    Pair("two numbers [share of the average, above 0; mean of g squared]", first=Range(0, open_low=True)),
]
_Share = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


def _share(group: dict[str, Any]) -> float:
    """Return a, the share of the average in y."""
    share: float = group["momentum"] if "momentum" in group else group["betas"][0]
    return share


class _ScheduleFreeOptimizer(Optimizer):
    """The steps that both have in common."""

    def advance(self, group: dict[str, Any], y: list[Tensor], z: list[Tensor], d: list[Tensor], rate: float) -> None:
        """Make the step of a group: move z and y, given the directions d at y and their rate."""
        group["squares"] += rate**2
        # The sum is 0 while the rate has been 0 since the first step
        c = rate**2 / group["squares"] if rate else 0.0
        torch._foreach_add_(z, d, alpha=-rate)
        torch._foreach_lerp_(y, z, c)
        torch._foreach_add_(y, d, alpha=-rate * (1 - c) * (1 - _share(group)))

    @torch.no_grad()
    def averaged(self) -> dict[Tensor, Tensor]:
        """Return x for each parameter that has made a step: `x = z + (y - z) / a`."""
        averages: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            y = [p for p in group["params"] if p in self.state]
            if y:
                x = torch._foreach_lerp([self.state[p]["z"] for p in y], y, 1 / _share(group))
                averages.update(zip(y, x, strict=True))
        return averages


class ScheduleFree(_ScheduleFreeOptimizer):
    """Schedule-free AdamW; see `schedulefree`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients at y."""
        for group in self.param_groups:
            b = group["betas"][1]
            y, gradients, (z, v) = gather(self, group, z=torch.clone, exp_avg_sq=zeros_like)
            if not y:
                continue
            group["step"] += 1
            torch._foreach_mul_(v, b)
            torch._foreach_addcmul_(v, gradients, gradients, 1 - b)
            denominators = torch._foreach_sqrt(v)
            torch._foreach_add_(denominators, group["eps"])
            d = list(torch._foreach_div(gradients, denominators))
            torch._foreach_add_(d, y, alpha=group["weight_decay"])
            self.advance(group, y, z, d, group["lr"] * (1 - b ** group["step"]) ** 0.5)


@register("optim")
def schedulefree(groups: Groups, *, betas: _Betas, eps: Positive) -> Optimizer:
    """Return schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682, algorithm 1).

    `d = g / (sqrt(v) + eps) + weight_decay * y` and `r = lr * sqrt(1 - b ** t)`, with the gradient g at y;
    `z <- z - r * d; x <- (1 - c) * x + c * z; y <- (1 - a) * z + a * x`, where c is r ** 2 over the sum of all r ** 2
    so far. The model holds y. Evaluation should read the average x: set `average=schedulefree` and
    `scheduler=constant`, with or without warm-up. `betas: [a, b]` with a > 0: at a = 0, y is z and x is lost.
    """
    settings = {"lr": groups.lr, "betas": pair(betas), "eps": eps, "weight_decay": groups.weight_decay}
    return ScheduleFree(groups.param_groups(), {**settings, "step": 0, "squares": 0.0})


class ScheduleFreeSGD(_ScheduleFreeOptimizer):
    """Schedule-free SGD; see `schedulefree_sgd`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step from the gradients at y."""
        for group in self.param_groups:
            y, gradients, (z,) = gather(self, group, z=torch.clone)
            if y:
                d = list(torch._foreach_add(gradients, y, alpha=group["weight_decay"]))
                self.advance(group, y, z, d, group["lr"])


@register("optim")
def schedulefree_sgd(groups: Groups, *, momentum: _Share) -> Optimizer:
    """Return schedule-free SGD (Defazio et al. 2024, arXiv 2405.15682, equations 3 to 5).

    `z <- z - lr * (g + weight_decay * y); x <- (1 - c) * x + c * z; y <- (1 - momentum) * z + momentum * x`, with the
    gradient g at y, where c is lr ** 2 over the sum of all lr ** 2 so far. The model holds y; set
    `average=schedulefree` and `scheduler=constant`, with or without warm-up.
    """
    settings = {"lr": groups.lr, "momentum": momentum, "weight_decay": groups.weight_decay}
    return ScheduleFreeSGD(groups.param_groups(), {**settings, "squares": 0.0})
