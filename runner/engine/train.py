"""The loop: train, update, evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Outcome, Watched
from runner.engine.learner import Learner
from runner.engine.log import Log
from runner.engine.probing import due, probing
from runner.engine.recipe import Recipe
from runner.engine.timing import Timing
from runner.errors import Diverged

Commit = Callable[[], None]  # saves a checkpoint of this very step


def train(
    recipe: Recipe,
    learner: Learner,
    batches: TrainBatches,
    validation: dict[str, EvalBatches],
    log: Log,
    commit: Commit,
) -> str:
    """Train from the learner's step on; return `done`, or `stopped` when patience is spent.

    Raises Diverged, with the weights before that step, when a flush shows a loss or a gradient that was not finite.
    """
    timing = Timing(batches, learner.step)
    for images, labels in timing.watched(batches.stream(learner.step, recipe.total_steps)):
        if learner.patience.spent:
            break
        learner.set_lr()
        images, labels = recipe.mix(images, labels, learner.step)
        watched = Watched(learner.model, learner.parameters, images, labels, learner.step)
        with probing(due(recipe.probes, learner.step + 1), watched) as seen:
            seen.outcome = update(recipe, learner, images, labels)
        log.add(learner.step, {"train/loss": seen.outcome.loss, **seen.values})
        milestones(recipe, learner, validation, log, commit, timing)
    return "stopped" if learner.patience.spent else "done"


def update(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Outcome:
    """Make one optimizer step from its examples (B, ...), in `accumulate` micro-batches weighted by their size."""
    model, scaler = learner.model, learner.scaler
    learner.zero_grad()
    losses = []
    for number, (x, y) in enumerate(micro_batches(images, labels, recipe.accumulate)):
        recipe.reseed(learner.step * recipe.accumulate + number)
        with recipe.autocast():
            loss = share(recipe.loss(recipe.forward(model, x), y), len(x), len(images))
        losses.append(loss.detach())
        for penalty in recipe.penalties if number == 0 else ():
            loss = loss + penalty(model)
        torch.autograd.backward(scaler.scale(loss))
    mean = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    scaler.unscale_(learner.optimizer) if scaler.is_enabled() else None
    grad_norm = recipe.clip(model)
    learner.take_step(mean)
    for constrain in recipe.constraints:
        constrain(model)
    learner.step += 1
    learner.average.update(model, learner.step)
    return Outcome(mean, grad_norm)


def micro_batches(images: Tensor, labels: Tensor, count: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Return a batch in `count` parts of about the same size, fewer where it is too small."""
    return [(images, labels)] if count == 1 else zip(images.chunk(count), labels.chunk(count), strict=True)


def share(loss: Tensor, part: int, whole: int) -> Tensor:
    """Return a part's mean loss weighted by its share of the examples."""
    return loss if part == whole else loss * (part / whole)


def milestones(
    recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches], log: Log, commit: Commit, timing: Timing
) -> None:
    """After a step, do what is due: bring the log to the host, validate, save."""
    step = learner.step
    validating, saving = recipe.due(recipe.validate_every, step), recipe.due(recipe.checkpoint_every, step)
    if validating or saving or recipe.due(recipe.log_every, step):  # a run whose loss diverged is not saved
        log.write(step, {"train/lr": learner.optimizer.param_groups[0]["lr"]})
        check(learner, log.flush().get("train/loss", 0.0))
        log.write(step, timing.lap(step))
    if validating:
        scores = validate(recipe, learner, validation)
        log.write(step, scores)
        learner.observe(scores)
    if saving or learner.patience.best_step == step or learner.patience.spent:
        commit()


def check(learner: Learner, loss: float) -> None:
    """Raise Diverged if a step since the last look had a loss or a gradient that was not finite."""
    if missed := learner.gate.missed():
        learner.step -= missed
        raise Diverged(
            f"the loss or a gradient is not finite in step {learner.step + 1}, and the weights are those before it; "
            "a smaller optim.lr may help"
        )
    if not math.isfinite(loss):  # a loss scaler has kept that step, as it does now and then, but the loss is not its
        raise Diverged(f"the training loss is {loss} at step {learner.step}; a smaller optim.lr may help")


def validate(recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches]) -> dict[str, float]:
    """Return `<split>/accuracy` and `<split>/loss` of the averaged model for each split given."""
    return {
        f"{split}/{name}": value
        for split, batches in validation.items()
        for name, value in evaluate(recipe, learner, batches).items()
    }


@torch.no_grad()
def evaluate(recipe: Recipe, learner: Learner, batches: EvalBatches) -> dict[str, float]:
    """Return accuracy in [0, 1] and mean negative log-likelihood of the predictions over all examples."""
    model = learner.average.module
    was_training = model.training
    model.eval()
    recipe.reseed(-1)
    totals = torch.zeros(2, device=batches.device)
    for images, labels in batches:
        with recipe.autocast():
            log_p = recipe.predict(model, images).float()
        correct = (log_p.argmax(1) == labels).sum()
        totals += torch.stack([correct.float(), F.nll_loss(log_p, labels, reduction="sum")])
    model.train(was_training)
    accuracy, loss = (totals.cpu().double() / len(batches)).tolist()  # MPS has no float64
    return {"accuracy": accuracy, "loss": loss}
