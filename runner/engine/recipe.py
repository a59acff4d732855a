"""The recipe, which stays fixed during a run, and the default step: the plain update and the plain gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from runner.engine.contracts import Loss, Outcome, Predict, Probe
from runner.engine.forward import Forward, plain_forward
from runner.engine.learner import Learner

_Result = TypeVar("_Result")
Batch = tuple[Tensor, Tensor]  # images (B, C, H, W) float; labels (B,) int64, or (B, K) float


def _plain_update(
    recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor
) -> Generator[Batch, Tensor, Outcome]:
    """Make one optimizer step by the gradients at the present weights."""
    mean_loss = yield images, labels
    return apply_gradients(recipe, learner, mean_loss)


def apply_gradients(recipe: Recipe, learner: Learner, mean_loss: Tensor) -> Outcome:
    """Clip the gradients in place, step the optimizer, constrain the weights, count the step and update the average.

    Every update ends with it; `mean_loss` () is the loss to report and to check.
    """
    model = learner.model
    learner.scaler.unscale_(learner.optimizer) if learner.scaling else None
    grad_norm = recipe.clip(model)
    learner.step_optimizer(mean_loss)
    for constrain in recipe.constraints:
        constrain(model)
    learner.step += 1
    learner.average.update(model, learner.step)
    return Outcome(mean_loss, grad_norm)


def _plain_gradients(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Tensor:
    """Put a step's gradients into the parameters and return the mean loss () without penalties.

    The examples (B, ...) go through the model in `accumulate` micro-batches, weighted by their size. Penalties enter
    the gradients once. Two calls within a step draw the same dropout masks.
    """
    model = learner.model
    learner.zero_grad()
    losses = []
    for number, (x, y) in enumerate(_micro_batches(images, labels, recipe.accumulate)):
        recipe.reseed(learner.step * recipe.accumulate + number)
        with recipe.autocast():
            loss = _share(recipe.loss(recipe.forward(model, x), y), len(x), len(images))
        losses.append(loss.detach())
        for penalty in recipe.penalties if number == 0 else ():
            loss = loss + penalty(model)
        torch.autograd.backward(learner.scaler.scale(loss) if learner.scaling else loss)
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _micro_batches(images: Tensor, labels: Tensor, count: int) -> Iterable[Batch]:
    """Return a batch in `count` parts of about the same size, fewer where it is too small."""
    return [(images, labels)] if count == 1 else zip(images.chunk(count), labels.chunk(count), strict=True)


def _share(loss: Tensor, part: int, whole: int) -> Tensor:
    """Return a part's mean loss weighted by its share of the examples."""
    return loss if part == whole else loss * (part / whole)


# A number of steps between two events that never happen, not even after the last step.
NEVER_DUE = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fixed part of a run. Steps are optimizer steps, counted from 1 as they are done.

    `update` makes a step. It asks for gradients by `mean_loss = yield images, labels`, any number of times, and
    `gradients` answers. Neither knows the other: every update works with every way to compute gradients.
    """

    seed: int
    total_steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int
    log_every: int
    accumulate: int
    loss: Loss
    mix: Callable[[Tensor, Tensor, int], Batch]  # (images, labels, step) -> (images, labels)
    predict: Predict
    penalties: Sequence[Callable[[nn.Module], Tensor]]
    constraints: Sequence[Callable[[nn.Module], None]]
    probes: Sequence[Probe]
    clip: Callable[[nn.Module], Tensor | None]  # clips gradients in place, returns their norm before
    autocast: Callable[[], AbstractContextManager[None]]
    reseed: Callable[[int], None]  # seeds torch's global generators, which dropout draws from
    forward: Forward = plain_forward  # how training calls the model; evaluation calls the model itself
    compiled: bool = False  # True if torch.compile made `forward`
    update: Update = _plain_update
    gradients: _Gradients = _plain_gradients

    def due(self, every: int, step: int) -> bool:
        """Return whether an event is due after `step`: after every so many steps and the last, unless `NEVER_DUE`."""
        return step % every == 0 or (step == self.total_steps and every != NEVER_DUE)


# A generator that makes one step of (recipe, learner, images, labels). It yields the examples whose gradients it needs
# and is sent their mean loss () when the gradients are in the parameters; it ends with `apply_gradients` and returns
# its Outcome. It may be closed at a `yield`: weights that it has perturbed are put back in a `finally`.
Update = Callable[[Recipe, Learner, Tensor, Tensor], Generator[Batch, Tensor, Outcome]]

# Replaces the gradients in the parameters by those of the examples' mean loss, and returns that loss () detached.
_Gradients = Callable[[Recipe, Learner, Tensor, Tensor], Tensor]


def drive(asking: Generator[Batch, Tensor, _Result], recipe: Recipe, learner: Learner) -> _Result:
    """Answer a generator that asks for gradients (an update, or the loop `steps`) by the recipe's; return its value.

    An error in the gradients closes the generator first.
    """
    gradients = recipe.gradients
    with closing(asking):
        try:
            images, labels = next(asking)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        while True:
            # Outside of any `try`: a StopIteration in here is an error, not the end.
            mean_loss = gradients(recipe, learner, images, labels)
            try:
                images, labels = asking.send(mean_loss)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
