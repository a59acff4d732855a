"""Optimizers without what torch.optim does for torch.compile and for hooks, in runs that have neither.

torch.optim imports torch._dynamo when an optimizer is built and again in its `step`, so that torch.compile leaves both
alone. That import takes as long as `import torch` itself, and what is wrapped round `step` and `zero_grad` costs a
small model a tenth of its step. Torch has no public way round either. So this file, and no other, touches private parts
of torch.optim: only where it finds them as it knows them (torch 2.11 to 2.15); else all stays torch's own way.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from runner.engine.fused import gathered, plainly

METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # the first call imports torch._dynamo
CACHE = "__dynamo_disable"  # where the wrapper of such a method keeps what it calls in the method's place
GLOBAL_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


def without_dynamo() -> None:
    """Let optimizers be built, zeroed, saved and loaded without importing torch._dynamo.

    Where something else has imported it (torch.compile does), torch's own way is back from the next call on.
    """
    for name in METHODS:
        wrapper: Any = getattr(Optimizer, name)
        known = code_name(wrapper) == "_disable_dynamo.<locals>.inner" and CACHE in wrapper.__code__.co_consts
        if known and not dynamo_is_there() and not hasattr(wrapper.__wrapped__, CACHE):
            setattr(wrapper.__wrapped__, CACHE, until_dynamo(wrapper, wrapper.__wrapped__))


def until_dynamo(wrapper: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method bare while torch._dynamo is not imported, and afterwards as torch wraps it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not dynamo_is_there():
            return method(*args, **kwargs)
        vars(method).pop(CACHE, None)
        return wrapper(*args, **kwargs)

    return call


def dynamo_is_there() -> bool:
    """Tell whether anything has imported torch._dynamo."""
    return "torch._dynamo" in sys.modules


def stepper(optimizer: Optimizer, *, compiled: bool = False) -> Callable[[list[Tensor]], object] | None:
    """Return what makes one step by the `gradients` without torch's wrappings; none where it is not as we know it.

    For as long as there are hooks (looked for at each step), or where a schedule of torch's has replaced it, it is
    `optimizer.step`. A profiler sees the operations of the bare step, but no range round them.
    """
    bare, without_gradients = bare_step(type(optimizer))
    if bare is None or compiled or optimizer.defaults.get("differentiable"):
        return None
    step = gathered(optimizer, bare) or partial(plainly, optimizer, bare)

    def direct(found: list[Tensor]) -> object:
        if hooked(optimizer):
            return optimizer.step()
        if not without_gradients:
            return step(found)
        with torch.no_grad():
            return step(found)

    return direct


def bare_step(kind: type[Optimizer]) -> tuple[Callable[..., object] | None, bool]:
    """Return the step that the author of an optimizer wrote, and whether torch turns gradients off round it.

    None where it is not to be found, or asks for a closure.
    """
    step: Any = kind.step
    if code_name(step) != "Optimizer.profile_hook_step.<locals>.wrapper":
        return None, False
    step = step.__wrapped__
    without_gradients = code_name(step) == "_use_grad_for_differentiable.<locals>._use_grad"
    step = step.__wrapped__ if without_gradients else step
    _, *others = inspect.signature(step).parameters.values()
    known = all(hasattr(torch_optimizer, name) for name in GLOBAL_HOOKS)
    return (step if known and all(p.default is not p.empty for p in others) else None), without_gradients


def hooked(optimizer: Optimizer) -> object:
    """Tell whether `optimizer.step` does more now than the bare step."""
    return (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
        or "step" in optimizer.__dict__
    )


def gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients that there are, in the order of the parameters."""
    return [g for group in optimizer.param_groups for p in group["params"] if (g := p.grad) is not None]


def zeroer(optimizer: Optimizer) -> Callable[[], None]:
    """Return what sets all gradients to None, without the profiler's range that `zero_grad` opens each time."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        return optimizer.zero_grad

    def zero() -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return zero


def code_name(function: object) -> str:
    """Return the name under which a function's code was written: a wrapper takes on other names, but not that one."""
    return function.__code__.co_qualname if isinstance(function, FunctionType) else ""
