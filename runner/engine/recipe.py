"""The recipe, which is the fixed part of a run, and the default way to make a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor, nn

from runner.durations import is_date
from runner.engine.contracts import Outcome, Predict, Probe
from runner.engine.division import Division
from runner.engine.forward import Forward, plain_forward
from runner.engine.learner import Learner
from runner.engine.losses import Loss, LossFunction
from runner.engine.metrics import Metrics
from runner.engine.saving.cadence import Cadence

_Result = TypeVar("_Result")
Batch = tuple[Tensor, Tensor]  # images (B, C, H, W) float; labels (B,) int64, or (B, K) float


def plain_update(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Generator[Batch, Tensor, Outcome]:
    """Make one optimizer step with the gradients at the current weights."""
    mean_loss = yield images, labels
    return apply_gradients(recipe, learner, mean_loss)


def apply_gradients(recipe: Recipe, learner: Learner, mean_loss: Tensor) -> Outcome:
    """Finish a step: clip the gradients in place, step the optimizer, apply constraints, update the weight average.

    Every update ends with this call.

    Args:
        recipe: The fixed part of the run.
        learner: The state of the run; `learner.step` increases by one.
        mean_loss: The loss () to log; the step is skipped if it is not finite.
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


def _plain_objective(recipe: Recipe, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss () of a micro-batch: that of the recipe."""
    return recipe.loss(recipe.forward(model, images), labels)


def gradients_of(objective: _Objective, recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradients of a batch into the parameters' `grad` and return the mean loss () without penalties.

    `objective` gives the loss of each micro-batch, under autocast. `division` splits the batch into micro-batches,
    whose losses are weighted by their size (gradient accumulation), and adds up the gradients of all processes.
    The gradients of the penalties are added once. Two calls in the same step use the same dropout masks.
    """
    model, division = learner.model, recipe.division
    learner.zero_grad()
    losses = []
    for number, (x, y, share) in enumerate(division.parts(images, labels, learner.step)):
        recipe.reseed(learner.step * recipe.accumulate + number)
        with recipe.autocast():
            loss = _weighted(objective(recipe, model, x, y), share)
        losses.append(loss.detach())
        for penalty in recipe.penalties if number == 0 and division.adds_penalties else ():
            loss = loss + penalty(model)
        torch.autograd.backward(learner.scaler.scale(loss) if learner.scaling else loss)
    return division.add_up(model, losses[0] if len(losses) == 1 else torch.stack(losses).sum())


def _plain_gradients(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradients of the recipe's loss."""
    return gradients_of(_plain_objective, recipe, learner, images, labels)


def _weighted(loss: Tensor, share: Tensor | float) -> Tensor:
    """Return the mean loss of a part of a batch times its share of the whole; the loss of no examples is zero."""
    if isinstance(share, Tensor):
        return loss * share.to(loss.dtype)
    if 0 < share < 1:
        return loss * share
    # The mean over no examples is not a number, and its gradients have no elements
    return loss if share else torch.where(torch.isfinite(loss), loss, 0.0) * 0.0


def _unwatched(learner: Learner) -> AbstractContextManager[None]:
    """Return a context manager that checks nothing."""
    return nullcontext()


# An interval in steps for an event that never happens, not even after the last step.
NEVER_DUE = sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fixed part of a run. Steps are optimizer steps; the first one has number 1.

    `update` makes a step. It requests gradients with `mean_loss = yield images, labels`, any number of times, and
    `gradients` computes them. Every `update` works with every `gradients`.

    Attributes:
        seed: The seed of the run.
        total_steps: The last step.
        steps_per_epoch: The steps of an epoch.
        validate_every: The steps between validations; a fraction is rounded per date, to round(k * validate_every).
        cadence: Decides when checkpoints are saved.
        log_every: The steps between writes of the log.
        division: The micro-batches of a step, and which of their examples this process computes.
        loss: The training loss.
        mix: (images, labels, step) -> mixed (images, labels), as mixup does.
        predict: Turns images into predictions in evaluation.
        penalties: Terms that are added to the loss.
        constraints: Functions that change the weights in place after each step.
        at_step: Functions that set modules before each step, such as a drop rate; they get the number of steps done.
        probes: Measurements during some steps.
        clip: Clips the gradients in place and returns what `Outcome` has as their norm before clipping.
        autocast: Returns a context manager for mixed precision.
        reseed: Seeds torch's global generators, which dropout draws from.
        forward: How training calls the model. Evaluation calls the model itself.
        compiled: True if torch.compile made `forward`.
        update: Makes one step.
        gradients: Computes the gradients that `update` requests.
        metrics: The metrics of each validation, beside accuracy, loss and nll.
        watch_validation: Returns a context manager around each validation, which checks what it leaves.
    """

    seed: int
    total_steps: int
    steps_per_epoch: int
    validate_every: int | Fraction
    cadence: Cadence
    log_every: int
    division: Division
    loss: Loss | LossFunction
    mix: Callable[[Tensor, Tensor, int], Batch]
    predict: Predict
    penalties: Sequence[Callable[[nn.Module], Tensor]]
    constraints: Sequence[Callable[[nn.Module], None]]
    probes: Sequence[Probe]
    clip: Callable[[nn.Module], Tensor | None]
    autocast: Callable[[], AbstractContextManager[None]]
    reseed: Callable[[int], None]
    forward: Forward = plain_forward
    compiled: bool = False
    update: Update = plain_update
    gradients: Gradients = _plain_gradients
    metrics: Metrics = field(default_factory=Metrics)
    at_step: Sequence[Callable[[int], None]] = ()
    watch_validation: Callable[[Learner], AbstractContextManager[None]] = _unwatched

    @property
    def accumulate(self) -> int:
        """Return the micro-batches of a step (gradient accumulation)."""
        return self.division.count

    def due(self, every: int | Fraction, step: int) -> bool:
        """Return True if an event is due after `step`: every `every` steps and after the last, unless `NEVER_DUE`."""
        return is_date(step, every) or (step == self.total_steps and every != NEVER_DUE)


# (recipe, learner, images, labels) -> a generator that makes one step. It yields the batch whose gradients it needs and
# receives the mean loss () once the gradients are in the parameters. It ends with `apply_gradients` and returns its
# Outcome. The caller may close it at a `yield`, so an update that perturbs weights (SAM) restores them in a `finally`.
Update = Callable[[Recipe, Learner, Tensor, Tensor], Generator[Batch, Tensor, Outcome]]

# (recipe, learner, images, labels) -> the mean loss () of the batch, detached. Replaces the `grad` of the parameters.
Gradients = Callable[[Recipe, Learner, Tensor, Tensor], Tensor]


# (recipe, model, images, labels) -> the mean loss () of a micro-batch, with its graph
_Objective = Callable[[Recipe, nn.Module, Tensor, Tensor], Tensor]


def drive(requests: Generator[Batch, Tensor, _Result], recipe: Recipe, learner: Learner) -> _Result:
    """Run a generator that requests gradients, with the recipe's `gradients`, and return its value.

    Args:
        requests: An update or the training loop `steps`. It is closed if `gradients` raises an error.
        recipe: The fixed part of the run.
        learner: The state of the run.
    """
    gradients = recipe.gradients
    with closing(requests):
        try:
            images, labels = next(requests)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        while True:
            # Not in the `try`: a StopIteration raised in here is an error and not the end of the generator.
            mean_loss = gradients(recipe, learner, images, labels)
            try:
                images, labels = requests.send(mean_loss)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
