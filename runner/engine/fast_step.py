"""How gradients become a step: torch's own way, and the same step without torch's wrappers where they do nothing.

torch.optim imports torch._dynamo when an optimizer is built and again in its `step`, so that torch.compile leaves both
alone. That import takes as long as `import torch` itself, and the wrappers around `step` and `zero_grad` cost a small
model a tenth of its step. Torch has no public way around them. So this file and `fused_step`, and no other, use private
parts of torch.optim, and only where these are as in torch 2.11 to 2.15; otherwise all stays torch's own way.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from runner.engine.fused_step import fused_step, torch_step

# Methods of an optimizer whose first call imports torch._dynamo.
METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
# The attribute of such a method in which its wrapper keeps the function that it calls instead.
_CACHE = "__dynamo_disable"
_GLOBAL_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


@dataclass(frozen=True, slots=True)
class Stepper:
    """How gradients become a step of one optimizer."""

    step: Callable[[list[Tensor]], object]  # one step by the present gradients, in the order of the parameters
    zero_grad: Callable[[], object]  # sets all gradients to None


def torch_stepper(optimizer: Optimizer) -> Stepper:
    """Return the `step` and `zero_grad` of the optimizer itself."""
    return Stepper(lambda gradients: optimizer.step(), optimizer.zero_grad)


def fast_stepper(optimizer: Optimizer) -> Stepper:
    """Return the fastest known step with the same bits as `optimizer.step`, else `optimizer.step` itself."""
    return Stepper(fast_step(optimizer) or torch_stepper(optimizer).step, fast_zero_grad(optimizer))


def avoid_dynamo() -> None:
    """Let optimizers be built, zeroed, saved and loaded without importing torch._dynamo.

    After anything else has imported it (as torch.compile does), the next call uses torch's wrapper again.
    """
    for name in METHODS:
        wrapper: Any = getattr(Optimizer, name)
        known = _code_name(wrapper) == "_disable_dynamo.<locals>.inner" and _CACHE in wrapper.__code__.co_consts
        if known and not _dynamo_is_imported() and not hasattr(wrapper.__wrapped__, _CACHE):
            setattr(wrapper.__wrapped__, _CACHE, _until_dynamo(wrapper, wrapper.__wrapped__))


def _until_dynamo(wrapper: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is unwrapped until torch._dynamo is imported, and wrapped by torch afterwards."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not _dynamo_is_imported():
            return method(*args, **kwargs)
        vars(method).pop(_CACHE, None)
        return wrapper(*args, **kwargs)

    return call


def _dynamo_is_imported() -> bool:
    """Return True if anything has imported torch._dynamo."""
    return "torch._dynamo" in sys.modules


def fast_step(optimizer: Optimizer) -> Callable[[list[Tensor]], object] | None:
    """Return the step of an optimizer without torch's wrappers; None if this module does not support it.

    It calls `optimizer.step` if the optimizer has hooks, or if a scheduler of torch has replaced `step`. Both are
    checked at each step. A profiler sees the operations of the step but no range around them.
    """
    class_step, without_grad = unwrapped_step(type(optimizer))
    if class_step is None or optimizer.defaults.get("differentiable"):
        return None
    step = fused_step(optimizer, class_step) or partial(torch_step, optimizer, class_step)

    def fast(gradients: list[Tensor]) -> object:
        if _hooked(optimizer):
            return optimizer.step()
        if not without_grad:
            return step(gradients)
        with torch.no_grad():
            return step(gradients)

    return fast


def unwrapped_step(kind: type[Optimizer]) -> tuple[Callable[..., object] | None, bool]:
    """Return the step as the author of an optimizer wrote it, and True if torch disables gradients around it.

    The step is None if it cannot be found or requires a closure.
    """
    step: Any = kind.step
    if _code_name(step) != "Optimizer.profile_hook_step.<locals>.wrapper":
        return None, False
    step = step.__wrapped__
    without_grad = _code_name(step) == "_use_grad_for_differentiable.<locals>._use_grad"
    step = step.__wrapped__ if without_grad else step
    _, *others = inspect.signature(step).parameters.values()
    known = all(hasattr(torch_optimizer, name) for name in _GLOBAL_HOOKS)
    return (step if known and all(p.default is not p.empty for p in others) else None), without_grad


def _hooked(optimizer: Optimizer) -> object:
    """Return a true value if `optimizer.step` now does more than the unwrapped step."""
    return (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
        or "step" in optimizer.__dict__
    )


def present_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients that are not None, in the order of the parameters."""
    return [g for group in optimizer.param_groups for p in group["params"] if (g := p.grad) is not None]


def fast_zero_grad(optimizer: Optimizer) -> Callable[[], object]:
    """Return a function that sets all gradients to None without opening a profiler range, as `zero_grad` does."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        return optimizer.zero_grad

    def zero_grad() -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return zero_grad


def _code_name(function: object) -> str:
    """Return the qualified name of a function's code; unlike `__name__`, `functools.wraps` does not copy it."""
    return function.__code__.co_qualname if isinstance(function, FunctionType) else ""
