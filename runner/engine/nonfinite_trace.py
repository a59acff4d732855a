"""The non-finite trace: repeat the failed computation with hooks and find the first tensor that is not finite."""

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

_BEFORE = "; the weights are those before this step"
_ADVICE = "; a smaller optim.lr may help"


def explain_divergence(
    error: Diverged, recipe: Recipe, learner: Learner, batches: TrainBatches, validation: Mapping[str, EvalBatches]
) -> Diverged:
    """Return the error of a run, completed with the first tensor that was not finite.

    It changes the learner, so the run cannot continue afterwards.

    Args:
        error: What `train` raised. Only BadStep and BadScore are traced; any other error is returned unchanged.
        recipe: The fixed part of the run.
        learner: The state of the run, before the failed step or after the step with the non-finite score.
        batches: The training batches.
        validation: The validation batches by the name of the split.
    """
    if isinstance(error, BadStep):
        return Diverged(f"diverged at step {learner.step + 1}: {_trace_step(recipe, learner, batches)}")
    if isinstance(error, BadScore):
        return Diverged(f"{error}: {_trace_evaluation(recipe, learner, validation[error.split])}")
    return error


def _trace_step(recipe: Recipe, learner: Learner, batches: TrainBatches) -> str:
    """Repeat the failed step up to the optimizer's step and return a text about the first tensor that is not finite.

    It runs the recipe's `update`, so all forward and backward passes of the step are checked (SAM has two).
    """
    # Freeze the same parameters as in the failed step.
    learner.set_lr()
    with closing(batches.stream(learner.step, learner.step + 1)) as stream:
        images, labels = next(stream)
    if not _is_finite(images):
        count = int((~images.isfinite()).flatten(1).any(1).sum())
        return f"{count} of its {len(images)} input images are not finite{_BEFORE}"
    if weights := not_finite(dict(learner.model.named_parameters())):
        return f"the weight {weights[0]} was not finite before this step"
    images, labels = recipe.mix(images, labels, learner.step)
    penalties = [_checked("a penalty", penalty) for penalty in recipe.penalties]
    checked = replace(recipe, loss=_checked("the loss", recipe.loss), penalties=penalties)
    dry_run = _DryRun(**{field.name: getattr(learner, field.name) for field in fields(Learner)})
    found = find_first_nonfinite(learner.model, lambda: update(checked, dry_run, images, labels))
    if found is None:
        found = "the loss or a gradient was not finite, but all were finite when the step was repeated"
    return f"{found}{_BEFORE}{_ADVICE}"


class _ReachedOptimizer(Exception):
    """A dry run has reached the optimizer's step."""


class _DryRun(Learner):
    """A learner whose update ends before the optimizer's step."""

    def step_optimizer(self, loss: Tensor) -> None:
        """End the update."""
        raise _ReachedOptimizer


def _trace_evaluation(recipe: Recipe, learner: Learner, batches: EvalBatches) -> str:
    """Repeat the evaluation of a split and return a text about the first tensor that is not finite."""
    if faults := learner.faults():
        return f"{faults[0]} is not finite"
    found = find_first_nonfinite(learner.average.module, lambda: evaluate(recipe, learner, batches))
    return f"{found or 'all module outputs were finite when the evaluation was repeated'}{_ADVICE}"


class _Found(Exception):
    """Ends the computation; its message describes the first tensor that is not finite."""


def find_first_nonfinite(model: nn.Module, compute: Callable[[], object]) -> str | None:
    """Run a computation and return a text about the first tensor that is not finite; None if all are finite.

    The forward pass is checked at the input of the model and at the output of each module with a finite input. The
    backward pass is checked at the gradients of these outputs and of the weights. The text names the innermost module.
    The buffers of the model are restored.

    Args:
        model: The model.
        compute: Calls the model, and may compute gradients.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with _checking(model):
            compute()
    except _Found as found:
        return str(found)
    except _ReachedOptimizer:
        return None
    finally:
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)
    return None


@contextmanager
def _checking(model: nn.Module) -> Iterator[None]:
    """Register hooks that check every module and the gradient of every weight; remove them at the end."""
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
    """Raise _Found if an output of a module is not finite; register checks of the gradients at its outputs.

    The input is reported for the whole model only: a non-finite input of an inner module is the output of another one.
    """
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
    """Raise _Found if the gradient of a weight is not finite."""
    if weight.grad is not None:
        _check_gradient(f"the gradient of {name}", weight.grad)


def _check_gradient(what: str, gradient: Tensor) -> None:
    """Raise _Found if a gradient is not finite; the loss was checked before the backward pass."""
    if not _is_finite(gradient):
        raise _Found(f"{what} is not finite (the loss is)")


def _checked(what: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function with a check of its result that raises _Found."""

    def call(*args: Any) -> Tensor:
        result = function(*args)
        if not _is_finite(result):
            raise _Found(f"{what} is not finite (the model's output is)")
        return result

    return call


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in the arguments or the result of a module, including those in tuples, lists and mappings."""
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
