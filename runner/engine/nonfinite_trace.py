"""Find the first tensor that is not finite: the failed computation is repeated and each module is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.evaluation import evaluate
from runner.engine.finite import BadScore, BadStep, not_finite
from runner.engine.learner import Learner
from runner.engine.recipe import Recipe
from runner.engine.train import update
from runner.errors import Diverged

_BEFORE = "; the weights are those before it"
_ADVICE = "; a smaller optim.lr may help"


def explained(
    error: Diverged, recipe: Recipe, learner: Learner, batches: TrainBatches, validation: Mapping[str, EvalBatches]
) -> Diverged:
    """Return the error of a run with the first tensor that was not finite; the run cannot continue afterwards."""
    if isinstance(error, BadStep):
        return Diverged(f"diverged at step {learner.step + 1}: {_trace_step(recipe, learner, batches)}")
    if isinstance(error, BadScore):
        return Diverged(f"{error}: {_trace_evaluation(recipe, learner, validation[error.split])}")
    return error


def _trace_step(recipe: Recipe, learner: Learner, batches: TrainBatches) -> str:
    """Repeat the step after the present one up to the optimizer and return the first tensor that is not finite.

    The recipe's own update asks for the gradients, so that each of its passes is checked.
    """
    # The same parameters are frozen as in that step.
    learner.set_lr()
    with closing(batches.stream(learner.step, learner.step + 1)) as stream:
        images, labels = next(stream)
    if not _is_finite(images):
        count = int((~images.isfinite()).flatten(1).any(1).sum())
        return f"{count} of its {len(images)} input images are not finite{_BEFORE}"
    if weights := not_finite(dict(learner.model.named_parameters())):
        return f"the weight {weights[0]} is not finite, already before it"
    images, labels = recipe.mix(images, labels, learner.step)
    penalties = [_checked("a penalty", penalty) for penalty in recipe.penalties]
    checked = replace(recipe, loss=_checked("the loss", recipe.loss), penalties=penalties)
    rehearsal = _Rehearsal(**{field.name: getattr(learner, field.name) for field in fields(Learner)})
    found = first_in(learner.model, lambda: update(checked, rehearsal, images, labels))
    return f"{found or 'the loss or a gradient was not finite, and is when the step is made again'}{_BEFORE}{_ADVICE}"


class _Rehearsed(Exception):
    """A rehearsed step has reached its optimizer."""


class _Rehearsal(Learner):
    """A learner whose update ends where the optimizer would step."""

    def step_optimizer(self, loss: Tensor) -> None:
        """End the update."""
        raise _Rehearsed


def _trace_evaluation(recipe: Recipe, learner: Learner, batches: EvalBatches) -> str:
    """Return the first tensor that is not finite in the evaluation of a split."""
    if faults := learner.faults():
        return f"{faults[0]} is not finite"
    found = first_in(learner.average.module, lambda: evaluate(recipe, learner, batches))
    return f"{found or 'no output of a module is infinite or NaN when it is evaluated again'}{_ADVICE}"


class _Found(Exception):
    """The first tensor that is not finite, in words; it ends the computation."""


def first_in(model: nn.Module, compute: Callable[[], object]) -> str | None:
    """Compute, and return in words the first tensor that is not finite in order of execution; None if all are finite.

    Checked are the input, the output of each module whose input is finite, and in the backward pass the gradients at
    those outputs and of the weights. The innermost module is named, not those around it. Buffers are restored.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with _checking(model):
            compute()
    except _Found as found:
        return str(found)
    except _Rehearsed:
        return None
    finally:
        with torch.no_grad():
            for buffer, was in zip(model.buffers(), before, strict=True):
                buffer.copy_(was)
    return None


@contextmanager
def _checking(model: nn.Module) -> Iterator[None]:
    """Check every module and every gradient of a weight by hooks."""
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        what = f"{name or 'the model'} ({type(module).__name__})"
        handles.append(module.register_forward_hook(partial(_check_output, what, not name), with_kwargs=True))
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            hook = partial(_check_weight, name)
            handles.append(weight.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_output(
    what: str, outermost: bool, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any
) -> None:
    """Check the input and the output of a module."""
    input_is_finite = all(map(_is_finite, _tensors_in((args, named))))
    if outermost and not input_is_finite:
        raise _Found("the input is not finite")
    for tensor in _tensors_in(output):
        if input_is_finite and not _is_finite(tensor):
            raise _Found(f"the output of {what} is not finite (its input and the weights are)")
        if tensor.requires_grad:
            hook = partial(_check_gradient, f"the gradient at the output of {what}")
            tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def _check_weight(name: str, weight: Tensor) -> None:
    """Check the gradient of a weight."""
    if weight.grad is not None:
        _check_gradient(f"the gradient of {name}", weight.grad)


def _check_gradient(what: str, gradient: Tensor) -> None:
    """Check a gradient; the loss was checked before there is one."""
    if not _is_finite(gradient):
        raise _Found(f"{what} is not finite (the loss is)")


def _checked(what: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function whose result is checked."""

    def call(*given: Any) -> Tensor:
        result = function(*given)
        if not _is_finite(result):
            raise _Found(f"{what} is not finite (the model's output is)")
        return result

    return call


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a module's arguments or result: a tensor, or tuples, lists and mappings of such."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors_in(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors_in(item)


def _is_finite(tensor: Tensor) -> bool:
    """Return True if a tensor holds neither NaN nor infinity; waits for the device."""
    return bool(torch.isfinite(tensor).all())
