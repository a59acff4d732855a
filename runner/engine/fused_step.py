"""The steps of torch's fused SGD, Adam and AdamW without collecting all tensors anew each time.

At each step torch.optim walks through all parameters, collects their gradients and states, and sorts them by device and
type. For a small model that takes six times as long as the kernels that it then calls. Of what it collects only the
gradients change from step to step, so here the rest is collected once. The kernels have no public name. So they are
called only where three trial steps give the same as torch's own, bit for bit, and only for optimizers of exactly these
classes; everything else, and each step in which another set of tensors has gradients, goes torch's own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

_Group = dict[str, Any]
_Bare = Callable[[Optimizer], object]  # the step of an optimizer's class without torch's wrappers


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Tensors of one group, one device and one type, with their optimizer state in the order of `Rule.keeps`."""

    group: _Group
    parameters: list[Tensor]
    states: list[list[Tensor]]
    positions: list[int]  # of their gradients in the list of all


@dataclass(frozen=True)
class _Rule:
    """How one class steps: the options that its step reads, the state that it keeps per tensor, and its kernel."""

    options: tuple[str, ...]
    keeps: Callable[[_Group], tuple[str, ...]]
    step: Callable[[_Bucket, list[Tensor], Tensor | None], None]


def _sgd(bucket: _Bucket, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    """Call the kernel of SGD."""
    group = bucket.group
    torch._fused_sgd_(
        bucket.parameters,
        gradients,
        bucket.states[0] if bucket.states else [],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        # torch's own step is the first one: it creates the momentum.
        is_first_step=False,
        grad_scale=None,
        found_inf=found_inf,
    )


def _adam(bucket: _Bucket, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    """Call the kernel of Adam or AdamW; if `found_inf` is 1, neither the weights nor the count of steps change."""
    group = bucket.group
    steps, means, squares = bucket.states
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    torch._foreach_add_(steps, 1)
    kernel(
        bucket.parameters,
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


def _momentum_of(group: _Group) -> tuple[str, ...]:
    """Return the names of SGD's state."""
    return ("momentum_buffer",) if group["momentum"] else ()


def _moments_of(group: _Group) -> tuple[str, ...]:
    """Return the names of Adam's state."""
    return "step", "exp_avg", "exp_avg_sq"


_ADAM = _Rule(("lr", "betas", "eps", "weight_decay", "maximize"), _moments_of, _adam)
RULES: dict[type[Optimizer], _Rule] = {
    SGD: _Rule(("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"), _momentum_of, _sgd),
    Adam: _ADAM,
    AdamW: _ADAM,
}


def fused_step(optimizer: Optimizer, bare: _Bare) -> FusedStep | None:
    """Return a step that gives the same as `bare`, the step of the class, with less work; None if none is known."""
    rule = RULES.get(type(optimizer))
    if rule is None or not all(
        _is_plain(group) and _agrees(type(optimizer), rule, group, bare) for group in optimizer.param_groups
    ):
        return None
    return FusedStep(optimizer, rule, bare)


def _is_plain(group: _Group) -> bool:
    """Return True if a group uses a fused kernel in its plain form."""
    flags = ("amsgrad", "capturable", "differentiable", "foreach")
    tensors = any(isinstance(value, Tensor) for value in (group["lr"], *group.get("betas", ())))
    return bool(group.get("fused")) and not tensors and not any(group.get(flag) for flag in flags)


class FusedStep:
    """Step an optimizer whose tensors were collected once.

    Tensors without a gradient are skipped. When the set of those changes, or a state was loaded, torch makes that step
    and all tensors are collected anew.
    """

    def __init__(self, optimizer: Optimizer, rule: _Rule, bare: _Bare) -> None:
        self.optimizer, self.rule, self.bare = optimizer, rule, bare
        self.buckets: list[_Bucket] = []
        # When the buckets were collected: how many tensors had a gradient, and the tensors that had none.
        self.moving, self.without_grad = 0, list[Tensor]()
        # The state object that the buckets belong to: loading a state creates another.
        self.known: object = None

    def __call__(self, gradients: list[Tensor]) -> None:
        """Make one step by the gradients that are present, in the order of the parameters; call it under `no_grad`."""
        optimizer = self.optimizer
        if self.known is not optimizer.state or len(gradients) != self.moving or self._has_new_gradient():
            self.bare(optimizer)
            self._collect()
            return
        found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        for bucket in self.buckets:
            self.rule.step(bucket, [gradients[position] for position in bucket.positions], found_inf)

    def _has_new_gradient(self) -> bool:
        """Return True if a tensor has a gradient that had none when the buckets were collected."""
        return any(p.grad is not None for p in self.without_grad)

    def _collect(self) -> None:
        """Collect all tensors after a step, unless some are on another device than `found_inf`."""
        groups = self.optimizer.param_groups
        self.without_grad = [p for group in groups for p in group["params"] if p.grad is None]
        moving = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
        self.moving = len(moving)
        alike: dict[object, _Bucket] = {}
        for position, (group, p) in enumerate(moving):
            names = self.rule.keeps(group)
            bucket = alike.setdefault((id(group), p.device, p.dtype), _Bucket(group, [], [[] for _ in names], []))
            bucket.parameters.append(p)
            bucket.positions.append(position)
            for state, name in zip(bucket.states, names, strict=True):
                state.append(self.optimizer.state[p][name])
        self.buckets = list(alike.values())
        found_inf = getattr(self.optimizer, "found_inf", None)
        devices = {p.device for _, p in moving}
        self.known = self.optimizer.state if found_inf is None or devices <= {found_inf.device} else None


def _agrees(kind: type[Optimizer], rule: _Rule, group: _Group, bare: _Bare) -> bool:
    """Return True if a small trial with the options of a group gives the same as torch's own step, bit for bit."""
    like = group["params"][0]
    ends = []
    for fused in (True, False):
        weight = nn.Parameter(torch.tensor([0.5, -2.0], device=like.device, dtype=like.dtype))
        optimizer = kind([weight], **{name: group[name] for name in rule.options}, fused=True)  # type: ignore[call-arg]
        optimizer.found_inf = torch.zeros((), device=like.device)  # type: ignore[attr-defined]
        step = FusedStep(optimizer, rule, bare) if fused else partial(own_step, optimizer, bare)
        try:
            ends.append([*_trial(weight, optimizer, step), *optimizer.state[weight].values()])
        except (AttributeError, TypeError, RuntimeError, KeyError):
            return False
    return all(torch.equal(a, b) for a, b in zip(*ends, strict=True) if isinstance(a, Tensor))


def own_step(optimizer: Optimizer, bare: _Bare, gradients: list[Tensor]) -> object:
    """Make one step as the optimizer's class does, which collects the gradients itself."""
    return bare(optimizer)


@torch.no_grad()
def _trial(weight: Tensor, optimizer: Optimizer, step: Callable[[list[Tensor]], object]) -> Sequence[Tensor]:
    """Make three steps with different gradients, the last of them with `found_inf`, and return the weight."""
    for number, bad in enumerate((0.0, 0.0, 1.0)):
        weight.grad = torch.full_like(weight, 0.25 + number)
        optimizer.found_inf.fill_(bad)  # type: ignore[attr-defined]
        step([weight.grad])
    return [weight]
