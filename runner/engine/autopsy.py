"""What was first not finite: a computation that went wrong is made again, and every module looked at on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
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
from runner.engine.train import gradients
from runner.errors import Diverged

BEFORE = "; the weights are those before it"
ADVICE = "; a smaller optim.lr may help"


def explained(
    error: Diverged, recipe: Recipe, learner: Learner, batches: TrainBatches, validation: Mapping[str, EvalBatches]
) -> Diverged:
    """Return the error of a run with what was first not finite in it; the run cannot go on afterwards."""
    if isinstance(error, BadStep):
        return Diverged(f"diverged at step {learner.step + 1}: {in_step(recipe, learner, batches)}")
    if isinstance(error, BadScore):
        return Diverged(f"{error}: {in_evaluation(recipe, learner, validation[error.split])}")
    return error


def in_step(recipe: Recipe, learner: Learner, batches: TrainBatches) -> str:
    """Return what is first not finite in the step after the present one: made again, but for the optimizer's part."""
    with closing(batches.stream(learner.step, learner.step + 1)) as stream:
        images, labels = next(stream)
    if not finite(images):
        count = int((~images.isfinite()).flatten(1).any(1).sum())
        return f"{count} of its {len(images)} input images are not finite{BEFORE}"
    if weights := not_finite(dict(learner.model.named_parameters())):
        return f"the weight {weights[0]} is not finite, already before it"
    images, labels = recipe.mix(images, labels, learner.step)
    penalties = [looked_at("a penalty", penalty) for penalty in recipe.penalties]
    heard = replace(recipe, loss=looked_at("the loss", recipe.loss), penalties=penalties)
    found = first_in(learner.model, lambda: gradients(heard, learner, images, labels))
    return f"{found or 'the loss or a gradient was not finite, and is when the step is made again'}{BEFORE}{ADVICE}"


def in_evaluation(recipe: Recipe, learner: Learner, batches: EvalBatches) -> str:
    """Return what is first not finite in the evaluation of a split."""
    if faults := learner.faults():
        return f"{faults[0]} is not finite"
    found = first_in(learner.average.module, lambda: evaluate(recipe, learner, batches))
    return f"{found or 'no output of a module is infinite or NaN when it is evaluated again'}{ADVICE}"


class Found(Exception):
    """The first thing that is not finite, in words; it ends the computation that was made to find it."""


def first_in(model: nn.Module, compute: Callable[[], object]) -> str | None:
    """Compute, and return in words what is first not finite, in order of execution; None if all is finite.

    Looked at are the input, the output of each module whose input is finite, and on the way back the gradients at those
    outputs and of the weights. A module inside others is named, not those round it. Buffers are put back afterwards.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with listening(model):
            compute()
    except Found as found:
        return str(found)
    finally:
        with torch.no_grad():
            for buffer, was in zip(model.buffers(), before, strict=True):
                buffer.copy_(was)
    return None


@contextmanager
def listening(model: nn.Module) -> Iterator[None]:
    """Hear every module and every gradient of a weight."""
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        what = f"{name or 'the model'} ({type(module).__name__})"
        handles.append(module.register_forward_hook(partial(at_output, what, not name), with_kwargs=True))
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            hook = partial(at_weight, name)
            handles.append(weight.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def at_output(
    what: str, outermost: bool, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any
) -> None:
    """Look at what went into a module and at what came out."""
    sound = all(map(finite, tensors((args, named))))
    if outermost and not sound:
        raise Found("the input is not finite")
    for tensor in tensors(output):
        if sound and not finite(tensor):
            raise Found(f"the output of {what} is not finite (its input and the weights are)")
        if tensor.requires_grad:
            hook = partial(at_gradient, f"the gradient at the output of {what}")
            tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def at_weight(name: str, weight: Tensor) -> None:
    """Look at the gradient that a weight has got."""
    if weight.grad is not None:
        at_gradient(f"the gradient of {name}", weight.grad)


def at_gradient(what: str, gradient: Tensor) -> None:
    """Look at a gradient; there is none before the loss was found finite."""
    if not finite(gradient):
        raise Found(f"{what} is not finite (the loss is)")


def looked_at(what: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of which the result is looked at."""

    def call(*given: Any) -> Tensor:
        result = function(*given)
        if not finite(result):
            raise Found(f"{what} is not finite (the model's output is)")
        return result

    return call


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of what modules take and give: a tensor, or tuples, lists and mappings of such."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity; waits for the device."""
    return bool(torch.isfinite(tensor).all())
