"""Fused steps of SGD, Adam and AdamW that group the tensors once instead of at every step.

At each step torch.optim loops over all parameters and groups them, their gradients and their optimizer state by device
and dtype. For a small model that takes six times as long as the fused kernels. Only the gradients change from step to
step, so this module groups everything else once.

The kernels are private to torch. They are called only for optimizers of exactly these classes, and only if three trial
steps give the same bits as torch's step. In all other cases, and when another set of parameters has gradients, the
`step` of the optimizer's class is called.
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
_ClassStep = Callable[[Optimizer], object]  # the step of an optimizer's class without torch's wrappers


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The parameters of one group, device and dtype, with their optimizer state in the order of `_Rule.state_names`."""

    group: _Group
    parameters: list[Tensor]
    states: list[list[Tensor]]
    positions: list[int]  # of their gradients among those of all parameters


@dataclass(frozen=True)
class _Rule:
    """The step of one optimizer class: the group options that it reads, the names of its state, and its kernel."""

    options: tuple[str, ...]
    state_names: Callable[[_Group], tuple[str, ...]]
    step: Callable[[_Bucket, list[Tensor], Tensor | None], None]


def _sgd(bucket: _Bucket, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    """Call the fused kernel of SGD."""
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
        # The first step is torch's, which creates the momentum buffers.
        is_first_step=False,
        grad_scale=None,
        found_inf=found_inf,
    )


def _adam(bucket: _Bucket, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    """Call the fused kernel of Adam or AdamW; if `found_inf` is 1, the weights and the step count do not change."""
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
    """Return the names of the state of SGD per parameter."""
    return ("momentum_buffer",) if group["momentum"] else ()


def _moments_of(group: _Group) -> tuple[str, ...]:
    """Return the names of the state of Adam and AdamW per parameter."""
    return "step", "exp_avg", "exp_avg_sq"


_ADAM = _Rule(("lr", "betas", "eps", "weight_decay", "maximize"), _moments_of, _adam)
RULES: dict[type[Optimizer], _Rule] = {
    SGD: _Rule(("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"), _momentum_of, _sgd),
    Adam: _ADAM,
    AdamW: _ADAM,
}


def fused_step(optimizer: Optimizer, class_step: _ClassStep) -> FusedStep | None:
    """Return a faster step with the same bits as `class_step`, or None if the optimizer is not supported."""
    rule = RULES.get(type(optimizer))
    if rule is None or not all(
        _is_supported(group) and _matches_torch(type(optimizer), rule, group, class_step)
        for group in optimizer.param_groups
    ):
        return None
    return FusedStep(optimizer, rule, class_step)


def _is_supported(group: _Group) -> bool:
    """Return True if a group uses the fused kernel without options that change its arguments."""
    flags = ("amsgrad", "capturable", "differentiable", "foreach")
    tensors = any(isinstance(value, Tensor) for value in (group["lr"], *group.get("betas", ())))
    return bool(group.get("fused")) and not tensors and not any(group.get(flag) for flag in flags)


class FusedStep:
    """Step an optimizer with the fused kernel; its parameters are grouped once.

    Parameters without a gradient are skipped. If another set of parameters has gradients, or a state dict was loaded,
    torch makes the step and the parameters are grouped again.
    """

    def __init__(self, optimizer: Optimizer, rule: _Rule, class_step: _ClassStep) -> None:
        self.optimizer, self.rule, self.class_step = optimizer, rule, class_step
        self.buckets: list[_Bucket] = []
        # At the time of grouping: the number of parameters with a gradient, and the parameters without one.
        self.with_grad_count, self.without_grad = 0, list[Tensor]()
        # The `state` of the optimizer at the time of grouping. `load_state_dict` replaces that object.
        self.grouped_state: object = None

    def __call__(self, gradients: list[Tensor]) -> None:
        """Make one step with the gradients that are not None, in order of the parameters; call it under `no_grad`."""
        optimizer = self.optimizer
        same_state = self.grouped_state is optimizer.state
        if not same_state or len(gradients) != self.with_grad_count or self._has_new_gradient():
            self.class_step(optimizer)
            self._group()
            return
        found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        for bucket in self.buckets:
            self.rule.step(bucket, [gradients[position] for position in bucket.positions], found_inf)

    def _has_new_gradient(self) -> bool:
        """Return True if a parameter has a gradient now but had none at the time of grouping."""
        return any(p.grad is not None for p in self.without_grad)

    def _group(self) -> None:
        """Group parameters and state after a step of torch, which has created the state.

        Nothing is kept if a parameter is on another device than `found_inf`: the kernel could not read the flag.
        """
        groups = self.optimizer.param_groups
        self.without_grad = [p for group in groups for p in group["params"] if p.grad is None]
        with_grad = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
        self.with_grad_count = len(with_grad)
        buckets: dict[object, _Bucket] = {}
        for position, (group, p) in enumerate(with_grad):
            names = self.rule.state_names(group)
            bucket = buckets.setdefault((id(group), p.device, p.dtype), _Bucket(group, [], [[] for _ in names], []))
            bucket.parameters.append(p)
            bucket.positions.append(position)
            for state, name in zip(bucket.states, names, strict=True):
                state.append(self.optimizer.state[p][name])
        self.buckets = list(buckets.values())
        found_inf = getattr(self.optimizer, "found_inf", None)
        devices = {p.device for _, p in with_grad}
        self.grouped_state = self.optimizer.state if found_inf is None or devices <= {found_inf.device} else None


def _matches_torch(kind: type[Optimizer], rule: _Rule, group: _Group, class_step: _ClassStep) -> bool:
    """Return True if trial steps with the options of a group give the same bits as torch's step."""
    device, dtype = group["params"][0].device, group["params"][0].dtype
    results = []
    for fused in (True, False):
        weight = nn.Parameter(torch.tensor([0.5, -2.0], device=device, dtype=dtype))
        optimizer = kind([weight], **{name: group[name] for name in rule.options}, fused=True)  # type: ignore[call-arg]
        optimizer.found_inf = torch.zeros((), device=device)  # type: ignore[attr-defined]
        step = FusedStep(optimizer, rule, class_step) if fused else partial(torch_step, optimizer, class_step)
        try:
            results.append([*_trial(weight, optimizer, step), *optimizer.state[weight].values()])
        # Whatever a later version of torch changes in its private kernels, torch's step remains.
        except (AttributeError, TypeError, RuntimeError, KeyError):
            return False
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True) if isinstance(a, Tensor))


def torch_step(optimizer: Optimizer, class_step: _ClassStep, gradients: list[Tensor]) -> object:
    """Make one step with the `step` of the optimizer's class, which reads `grad` of the parameters itself."""
    return class_step(optimizer)


@torch.no_grad()
def _trial(weight: Tensor, optimizer: Optimizer, step: Callable[[list[Tensor]], object]) -> Sequence[Tensor]:
    """Make three steps with different gradients, the last one with `found_inf=1`, and return the weight."""
    for number, flag in enumerate((0.0, 0.0, 1.0)):
        weight.grad = torch.full_like(weight, 0.25 + number)
        optimizer.found_inf.fill_(flag)  # type: ignore[attr-defined]
        step([weight.grad])
    return [weight]
