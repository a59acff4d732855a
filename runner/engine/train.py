"""The training loop: updates, and the logging, validation and checkpoints that are due after a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing

from torch import Tensor

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Outcome, Watched
from runner.engine.evaluation import validate
from runner.engine.finite import BadScore, BadStep
from runner.engine.interruption import NEVER, Stop
from runner.engine.learner import Learner
from runner.engine.logs.log import Log
from runner.engine.probing import due, probing
from runner.engine.recipe import Batch, Recipe, drive
from runner.engine.timing import Timing
from runner.errors import Diverged
from runner.status import Status

# Saves a checkpoint of the learner's step.
_Commit = Callable[[], None]


def train(
    recipe: Recipe,
    learner: Learner,
    batches: TrainBatches,
    validation: dict[str, EvalBatches],
    log: Log,
    commit: _Commit,
    stop: Stop = NEVER,
) -> Status:
    """Train from the learner's step on with the recipe's own gradients; returns and raises the same as `steps`.

    A run that trains on its own is trained this way.
    """
    return drive(steps(recipe, learner, batches, validation, log, commit, stop), recipe, learner)


def steps(
    recipe: Recipe,
    learner: Learner,
    batches: TrainBatches,
    validation: dict[str, EvalBatches],
    log: Log,
    commit: _Commit,
    stop: Stop = NEVER,
) -> Generator[Batch, Tensor, Status]:
    """Train from the learner's step on; return DONE, or STOPPED if patience or `stop` ended the run.

    Yields the examples whose gradients an update needs. The caller stores the gradients in the parameters and sends
    the mean loss (); it may compute the gradients of several runs together.

    When `stop` is set, the present step is saved, and an unfinished validation is left to the resumed run. Raises
    Diverged, with the weights before the bad step, if a loss or a gradient was not finite.
    """
    timing = Timing(batches, learner.step)
    if _lacks_validation(recipe, learner):
        _validate_and_save(recipe, learner, validation, log, commit, stop)
    stop.agree()
    with closing(batches.stream(learner.step, recipe.total_steps)) as stream:
        for images, labels in timing.watched(stream):
            if learner.patience.spent or stop.agreed:
                break
            _set_lr(learner, log)
            images, labels = recipe.mix(images, labels, learner.step)
            watched = Watched(learner.model, learner.parameters, images, labels, learner.step)
            with probing(due(recipe.probes, learner.step + 1), watched) as seen:
                seen.outcome = yield from recipe.update(recipe, learner, images, labels)
            log.add(learner.step, {"train/loss": seen.outcome.loss, **seen.values})
            _log_and_check(recipe, learner, log, timing)
            saved = _validate_and_save(recipe, learner, validation, log, commit, stop)
            if stop.agree() and not saved:
                _raise_if_diverged(learner, log)
                _save(learner, commit)
    return Status.STOPPED if learner.patience.spent or stop.agreed else Status.DONE


def update(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Outcome:
    """Make one optimizer step from its examples (B, ...), as the loop does."""
    return drive(recipe.update(recipe, learner, images, labels), recipe, learner)


def _set_lr(learner: Learner, log: Log) -> None:
    """Give the optimizer the learning rate of its next step; raise Diverged if it is not finite."""
    learner.set_lr()
    for group in learner.optimizer.param_groups:
        if not math.isfinite(group["lr"]):
            # An earlier step may have been the first to go wrong.
            _raise_if_diverged(learner, log)
            which = f"the learning rate of the tensors in '{group['name']}' is {group['lr']}"
            raise Diverged(f"diverged at step {learner.step + 1}: {which}; the weights are those before it")


def _log_and_check(recipe: Recipe, learner: Learner, log: Log, timing: Timing) -> None:
    """If something is due after a step, log its learning rate and cost, and check that all steps so far were finite."""
    step, due = learner.step, recipe.due
    if due(recipe.log_every, step) or due(recipe.validate_every, step) or due(recipe.checkpoint_every, step):
        log.add(step, learner.rates())
        _raise_if_diverged(learner, log)
        log.add(step, timing.lap(step))


def _raise_if_diverged(learner: Learner, log: Log) -> None:
    """Bring the log up to date; raise BadStep if a step since the last check had a loss or gradient not finite.

    Then the learner's step and the log are set back to before the first such step.
    """
    missed = learner.gate.missed()
    if missed:
        # Nothing changed in the steps after the first bad one.
        log.forget(after=learner.step - missed + 1)
    loss = log.latest("train/loss") or 0.0
    log.keep_up()
    # A loss scaler skips steps for their gradients, and the run continues, but never for their loss.
    if missed or not math.isfinite(loss):
        learner.step -= missed or 1
        what = "the loss or a gradient is not finite; the weights are those before it"
        raise BadStep(f"diverged at step {learner.step + 1}: {what}")


def _lacks_validation(recipe: Recipe, learner: Learner) -> bool:
    """Return True if the validation after the present step is missing: the run was interrupted in it."""
    step = learner.step
    return step > 0 and recipe.due(recipe.validate_every, step) and learner.patience.last.get("step") != step


def _validate_and_save(
    recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches], log: Log, commit: _Commit, stop: Stop
) -> bool:
    """Validate and save where that is due after a step; return True if the step is saved."""
    step = learner.step
    if recipe.due(recipe.validate_every, step):
        scores = validate(recipe, learner, validation, stop)
        if stop.agree():
            log.hold()
            return False
        log.add(step, scores)
        _raise_if_bad_score(learner, scores)
        learner.record_scores(scores)
    saving = recipe.due(recipe.checkpoint_every, step) or learner.patience.best_step == step or learner.patience.spent
    if saving:
        _save(learner, commit)
    return saving


def _raise_if_bad_score(learner: Learner, scores: dict[str, float]) -> None:
    """Raise BadScore if a score is not finite."""
    for tag, score in scores.items():
        if not math.isfinite(score):
            raise BadScore(f"diverged at step {learner.step}: {tag} is {score} after it", tag.partition("/")[0])


def _save(learner: Learner, commit: _Commit) -> None:
    """Save the present step; raise Diverged if a tensor of it is not finite."""
    if faults := learner.faults():
        raise Diverged(f"diverged at step {learner.step}: {faults[0]} is not finite after it")
    commit()
