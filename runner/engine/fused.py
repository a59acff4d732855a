"""The steps of torch's fused SGD, Adam and AdamW without gathering all tensors anew each time.

At each step torch.optim walks through all parameters, collects their gradients and states, and sorts them by device and
type. For a small model that takes six times as long as the kernels that it then calls. What it finds changes from step
to step in nothing but the gradients, so here it is found once. The kernels have no public name. So they are called only
where they do as torch's own step does in a trial of two steps, bit for bit, and only for optimizers of exactly these
classes; all else, and every step in which some tensors of a group have no gradient, goes torch's own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

Group = dict[str, Any]
Bare = Callable[[Optimizer], object]


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors of one group, one device and one type, and what the optimizer keeps for each, in the order of `Rule`."""

    group: Group
    parameters: list[Tensor]
    kept: list[list[Tensor]]
    places: list[int]  # of their gradients among those of all


@dataclass(frozen=True)
class Rule:
    """How one class steps: its options that the step reads, what it keeps for a tensor, the call of its kernel."""

    options: tuple[str, ...]
    keeps: Callable[[Group], tuple[str, ...]]
    step: Callable[[Part, list[Tensor], Tensor | None], None]


def sgd(part: Part, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    """Call the kernel of SGD."""
    group = part.group
    torch._fused_sgd_(
        part.parameters,
        gradients,
        part.kept[0] if part.kept else [],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=False,  # that one is torch's own: it makes the momentum
        grad_scale=None,
        found_inf=found_inf,
    )


def adam(part: Part, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    """Call the kernel of Adam or AdamW; where `found_inf` is 1 it does nothing, and the count of steps stays too."""
    group = part.group
    steps, means, squares = part.kept
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    torch._foreach_add_(steps, 1)
    kernel(
        part.parameters,
        gradients,
        means,
        squares,
        [],
        steps,
        amsgrad=False,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
        grad_scale=None,
        found_inf=found_inf,
    )
    if found_inf is not None:
        torch._foreach_sub_(steps, [found_inf] * len(steps))


def momentum_of(group: Group) -> tuple[str, ...]:
    """Return what SGD keeps."""
    return ("momentum_buffer",) if group["momentum"] else ()


def moments_of(group: Group) -> tuple[str, ...]:
    """Return what Adam keeps."""
    return "step", "exp_avg", "exp_avg_sq"


ADAM = Rule(("lr", "betas", "eps", "weight_decay", "maximize"), moments_of, adam)
RULES: dict[type[Optimizer], Rule] = {
    SGD: Rule(("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"), momentum_of, sgd),
    Adam: ADAM,
    AdamW: ADAM,
}


def gathered(optimizer: Optimizer, bare: Bare) -> Gathered | None:
    """Return a step that does as `bare`, the one of the optimizer's class, with less work; none where it may not."""
    rule = RULES.get(type(optimizer))
    if rule is None or not all(
        simple(group) and agrees(type(optimizer), rule, group, bare) for group in optimizer.param_groups
    ):
        return None
    return Gathered(optimizer, rule, bare)


def simple(group: Group) -> bool:
    """Tell whether a group is stepped by a fused kernel in its plain form."""
    flags = ("amsgrad", "capturable", "differentiable", "foreach")
    tensors = any(isinstance(value, Tensor) for value in (group["lr"], *group.get("betas", ())))
    return bool(group.get("fused")) and not tensors and not any(group.get(flag) for flag in flags)


class Gathered:
    """Steps an optimizer by tensors that it has found once, or has found again after its state was loaded.

    What has no gradient in a step is passed over; where that changes, that step is torch's, and all are found anew.
    """

    def __init__(self, optimizer: Optimizer, rule: Rule, bare: Bare) -> None:
        self.optimizer, self.rule, self.bare = optimizer, rule, bare
        self.parts: list[Part] = []
        self.moving, self.resting = 0, list[Tensor]()  # how many had a gradient when the parts were found; the others
        self.known: object = None  # the state that the parts are of: loading a state makes another

    def __call__(self, gradients: list[Tensor]) -> None:
        """Make one step by the gradients, those there are in the order of the parameters; none may be recorded."""
        optimizer = self.optimizer
        if self.known is not optimizer.state or len(gradients) != self.moving or self.woken():
            self.bare(optimizer)
            self.gather()
            return
        found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        for part in self.parts:
            self.rule.step(part, [gradients[place] for place in part.places], found_inf)

    def woken(self) -> bool:
        """Tell whether a tensor has a gradient that had none when the parts were found."""
        return any(p.grad is not None for p in self.resting)

    def gather(self) -> None:
        """Find all tensors after a step, unless some lie elsewhere than `found_inf`."""
        groups = self.optimizer.param_groups
        self.resting = [p for group in groups for p in group["params"] if p.grad is None]
        moving = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
        self.moving = len(moving)
        alike: dict[object, Part] = {}
        for place, (group, p) in enumerate(moving):
            names = self.rule.keeps(group)
            part = alike.setdefault((id(group), p.device, p.dtype), Part(group, [], [[] for _ in names], []))
            part.parameters.append(p)
            part.places.append(place)
            for kept, name in zip(part.kept, names, strict=True):
                kept.append(self.optimizer.state[p][name])
        self.parts = list(alike.values())
        found_inf = getattr(self.optimizer, "found_inf", None)
        devices = {p.device for _, p in moving}
        self.known = self.optimizer.state if found_inf is None or devices <= {found_inf.device} else None


def agrees(kind: type[Optimizer], rule: Rule, group: Group, bare: Bare) -> bool:
    """Tell whether a small trial of the options of a group ends as torch's own step does, bit for bit."""
    like = group["params"][0]
    ends = []
    for direct in (True, False):
        weight = nn.Parameter(torch.tensor([0.5, -2.0], device=like.device, dtype=like.dtype))
        optimizer = kind([weight], **{name: group[name] for name in rule.options}, fused=True)  # type: ignore[call-arg]
        optimizer.found_inf = torch.zeros((), device=like.device)  # type: ignore[attr-defined]
        step = Gathered(optimizer, rule, bare) if direct else partial(plainly, optimizer, bare)
        try:
            ends.append([*trial(weight, optimizer, step), *optimizer.state[weight].values()])
        except (AttributeError, TypeError, RuntimeError, KeyError):
            return False
    return all(torch.equal(a, b) for a, b in zip(*ends, strict=True) if isinstance(a, Tensor))


def plainly(optimizer: Optimizer, bare: Bare, gradients: list[Tensor]) -> object:
    """Make one step as the optimizer's class does, which finds the gradients itself."""
    return bare(optimizer)


@torch.no_grad()
def trial(weight: Tensor, optimizer: Optimizer, step: Callable[[list[Tensor]], object]) -> Sequence[Tensor]:
    """Make three steps with different gradients, the last of them with `found_inf`, and return the weight."""
    for number, bad in enumerate((0.0, 0.0, 1.0)):
        weight.grad = torch.full_like(weight, 0.25 + number)
        optimizer.found_inf.fill_(bad)  # type: ignore[attr-defined]
        step([weight.grad])
    return [weight]
