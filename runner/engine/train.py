"""The loop: train, update, and what is due after a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import closing

import torch
from torch import Tensor

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Outcome, Watched
from runner.engine.evaluation import validate
from runner.engine.finite import BadScore, BadStep
from runner.engine.interruption import NEVER, Stop
from runner.engine.learner import Learner
from runner.engine.logs.log import Log
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
    stop: Stop = NEVER,
) -> str:
    """Train from the learner's step on; return `done`, or `stopped` when patience is spent or `stop` asks for it.

    When it asks, the present step is saved, and a validation that is under way is left to the run that goes on. Raises
    Diverged, with the weights before that step, when a look shows a loss or a gradient that was not finite.
    """
    timing = Timing(batches, learner.step)
    if unscored(recipe, learner):
        milestones(recipe, learner, validation, log, commit, stop)
    with closing(batches.stream(learner.step, recipe.total_steps)) as stream:
        for images, labels in timing.watched(stream):
            if learner.patience.spent or stop.signal:
                break
            set_lr(learner, log)
            images, labels = recipe.mix(images, labels, learner.step)
            watched = Watched(learner.model, learner.parameters, images, labels, learner.step)
            with probing(due(recipe.probes, learner.step + 1), watched) as seen:
                seen.outcome = update(recipe, learner, images, labels)
            log.add(learner.step, {"train/loss": seen.outcome.loss, **seen.values})
            account(recipe, learner, log, timing)
            saved = milestones(recipe, learner, validation, log, commit, stop)
            if stop.signal and not saved:
                check(learner, log)
                save(learner, commit)
    return "stopped" if learner.patience.spent or stop.signal else "done"


def set_lr(learner: Learner, log: Log) -> None:
    """Give the optimizer the learning rate of its next step; raise Diverged if it is not finite."""
    learner.set_lr()
    for group in learner.optimizer.param_groups:
        if not math.isfinite(group["lr"]):
            check(learner, log)  # an earlier step may have been the first to go wrong
            which = f"the learning rate of the tensors in '{group['name']}' is {group['lr']}"
            raise Diverged(f"diverged at step {learner.step + 1}: {which}; the weights are those before it")


def update(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Outcome:
    """Make one optimizer step from its examples (B, ...)."""
    model = learner.model
    mean = gradients(recipe, learner, images, labels)
    learner.scaler.unscale_(learner.optimizer) if learner.scaling else None
    grad_norm = recipe.clip(model)
    learner.take_step(mean)
    for constrain in recipe.constraints:
        constrain(model)
    learner.step += 1
    learner.average.update(model, learner.step)
    return Outcome(mean, grad_norm)


def gradients(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Tensor:
    """Compute a step's gradients, in `accumulate` micro-batches weighted by their size; return its mean loss ()."""
    model = learner.model
    learner.zero_grad()
    losses = []
    for number, (x, y) in enumerate(micro_batches(images, labels, recipe.accumulate)):
        recipe.reseed(learner.step * recipe.accumulate + number)
        with recipe.autocast():
            loss = share(recipe.loss(recipe.forward(model, x), y), len(x), len(images))
        losses.append(loss.detach())
        for penalty in recipe.penalties if number == 0 else ():
            loss = loss + penalty(model)
        torch.autograd.backward(learner.scaler.scale(loss) if learner.scaling else loss)
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def micro_batches(images: Tensor, labels: Tensor, count: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Return a batch in `count` parts of about the same size, fewer where it is too small."""
    return [(images, labels)] if count == 1 else zip(images.chunk(count), labels.chunk(count), strict=True)


def share(loss: Tensor, part: int, whole: int) -> Tensor:
    """Return a part's mean loss weighted by its share of the examples."""
    return loss if part == whole else loss * (part / whole)


def account(recipe: Recipe, learner: Learner, log: Log, timing: Timing) -> None:
    """Where something is due after a step, bring the log to the host first and look whether all is finite."""
    step, due = learner.step, recipe.due
    if due(recipe.log_every, step) or due(recipe.validate_every, step) or due(recipe.checkpoint_every, step):
        log.add(step, {"train/lr": learner.optimizer.param_groups[0]["lr"]})
        check(learner, log)
        log.add(step, timing.lap(step))


def check(learner: Learner, log: Log) -> None:
    """Raise BadStep, and go back, if a step since the last look had a loss or a gradient not finite.

    The log keeps up.
    """
    missed = learner.gate.missed()
    if missed:
        log.forget(after=learner.step - missed + 1)  # only the first of them says anything
    loss = log.latest("train/loss") or 0.0
    log.keep_up()
    if missed or not math.isfinite(loss):  # a loss scaler skips steps itself, now and then, but not for their loss
        learner.step -= missed or 1
        what = "the loss or a gradient is not finite; the weights are those before it"
        raise BadStep(f"diverged at step {learner.step + 1}: {what}")


def unscored(recipe: Recipe, learner: Learner) -> bool:
    """Tell whether the validation after the present step is missing: the run was interrupted in it."""
    step = learner.step
    return step > 0 and recipe.due(recipe.validate_every, step) and learner.patience.last.get("step") != step


def milestones(
    recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches], log: Log, commit: Commit, stop: Stop
) -> bool:
    """Validate and save where that is due after a step; tell whether the step is saved."""
    step = learner.step
    if recipe.due(recipe.validate_every, step):
        scores = validate(recipe, learner, validation, stop)
        if stop.signal:
            log.hold()
            return False
        log.add(step, scores)
        check_scores(learner, scores)
        learner.observe(scores)
    saving = recipe.due(recipe.checkpoint_every, step) or learner.patience.best_step == step or learner.patience.spent
    if saving:
        save(learner, commit)
    return saving


def check_scores(learner: Learner, scores: dict[str, float]) -> None:
    """Raise BadScore if a score is not finite."""
    for tag, score in scores.items():
        if not math.isfinite(score):
            raise BadScore(f"diverged at step {learner.step}: {tag} is {score} after it", tag.partition("/")[0])


def save(learner: Learner, commit: Commit) -> None:
    """Save the present step, or raise Diverged if any of it is not finite."""
    if faults := learner.faults():
        raise Diverged(f"diverged at step {learner.step}: {faults[0]} is not finite after it")
    commit()
