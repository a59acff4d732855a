"""The training loop: updates, and the logging, validation and checkpoints after them."""

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

# Saves a checkpoint of the current step.
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
    """Train a run from its current step.

    Args:
        recipe: The fixed part of the run.
        learner: The state of the run; training continues after `learner.step` steps.
        batches: The training batches.
        validation: The batches to validate on, by the name of the split.
        log: Gets losses, scores and probe values.
        commit: Saves a checkpoint of the current step.
        stop: If it is set, the current step is saved; a resumed run repeats an unfinished validation.

    Returns:
        DONE, or STOPPED if early stopping, a pruner or `stop` ended the run.

    Raises:
        Diverged: A loss, gradient, learning rate or score is not finite. If a step caused it, the weights are those
            before that step.
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
    """Train a run from its current step, as a generator that requests gradients.

    It yields a batch (images, labels) whenever an update needs gradients. The caller stores the gradients in the
    parameters and sends the mean loss (); it may compute the gradients of several runs together. Arguments, result and
    errors are those of `train`.
    """
    timing = Timing(batches, learner.step)
    if _lacks_validation(recipe, learner):
        _validate_if_due(recipe, learner, validation, log, stop)
        # Never held in memory: the checkpoint of this step has these weights already
        if not stop.agreed and (_is_date(recipe, learner) or learner.patience.best_step == learner.step):
            _save(recipe, learner, commit)
    stop.agree()
    with closing(batches.stream(learner.step, recipe.total_steps)) as stream:
        for images, labels in timing.timed(stream):
            if learner.patience.should_stop or stop.agreed:
                break
            _set_lr(learner, log)
            images, labels = recipe.mix(images, labels, learner.step)
            watched = Watched(learner.model, learner.parameters, images, labels, learner.step)
            with probing(due(recipe.probes, learner.step + 1), watched) as probed:
                probed.outcome = yield from recipe.update(recipe, learner, images, labels)
            log.add(learner.step, {"train/loss": probed.outcome.loss, **probed.values})
            _log_and_check(recipe, learner, log, timing)
            _validate_if_due(recipe, learner, validation, log, stop)
            _save_if_due(recipe, learner, log, commit, stop, timing)
    return Status.STOPPED if learner.patience.should_stop or stop.agreed else Status.DONE


def update(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Outcome:
    """Make one optimizer step on a batch of images (B, C, H, W) with labels (B,) or (B, K), as the loop does."""
    return drive(recipe.update(recipe, learner, images, labels), recipe, learner)


def _set_lr(learner: Learner, log: Log) -> None:
    """Set the learning rate of the next step; raise Diverged if it is not finite."""
    learner.set_lr()
    for group in learner.optimizer.param_groups:
        if not math.isfinite(group["lr"]):
            # An earlier step that was not checked yet may have diverged first.
            _raise_if_diverged(learner, log)
            problem = f"the learning rate of the tensors in '{group['name']}' is {group['lr']}"
            raise Diverged(f"diverged at step {learner.step + 1}: {problem}; the weights are those before this step")


def _log_and_check(recipe: Recipe, learner: Learner, log: Log, timing: Timing) -> None:
    """Log learning rates and cost, and check that all steps so far were finite, if anything is due after this step."""
    step, due = learner.step, recipe.due
    if due(recipe.log_every, step) or due(recipe.validate_every, step) or recipe.cadence.due(step):
        log.add(step, learner.rates() | learner.scaler.skipped())
        _raise_if_diverged(learner, log)
        log.add(step, timing.lap(step))


def _raise_if_diverged(learner: Learner, log: Log) -> None:
    """Flush the log if due; raise BadStep if a step since the last check had a non-finite loss or gradient.

    In that case the learner's step is set back to the step before it, and the log ends with it.
    """
    skipped = learner.gate.skipped_steps()
    if skipped:
        # The gate also skipped all steps after the non-finite one, so their values mean nothing.
        log.discard(after=learner.step - skipped + 1)
    loss = log.latest("train/loss") or 0.0
    log.flush_if_due()
    # A loss scaler skips steps with non-finite gradients as part of its work. A non-finite loss is always an error.
    if skipped or not math.isfinite(loss):
        learner.step -= skipped or 1
        problem = "the loss or a gradient is not finite; the weights are those before this step"
        raise BadStep(f"diverged at step {learner.step + 1}: {problem}")


def _lacks_validation(recipe: Recipe, learner: Learner) -> bool:
    """Return True if a validation is due after the current step but was interrupted."""
    step = learner.step
    return step > 0 and recipe.due(recipe.validate_every, step) and learner.patience.last.get("step") != step


def _validate_if_due(
    recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches], log: Log, stop: Stop
) -> None:
    """Validate if due after the current step; a signal leaves that to the resumed run."""
    step = learner.step
    if recipe.due(recipe.validate_every, step):
        recipe.division.settle(learner.model, learner.average.module)
        cost = learner.recalibrate(learner, stop)
        with recipe.watch_validation(learner):
            scores = validate(recipe, learner, validation, stop)
        if stop.agree():
            log.keep_row_open()
            return
        log.add(step, {**cost, **scores})
        _raise_if_bad_score(learner, scores)
        learner.record_scores(scores)


def _save_if_due(recipe: Recipe, learner: Learner, log: Log, commit: _Commit, stop: Stop, timing: Timing) -> None:
    """Save a checkpoint if due after the current step, else keep its weights in memory if they are the best."""
    stop.agree(recipe.cadence.overdue(learner.step))
    if _is_date(recipe, learner):
        _save(recipe, learner, commit)
        # A signal may have come meanwhile
        stop.agree()
    elif stop.save:
        _raise_if_diverged(learner, log)
        with timing.paused():
            _save(recipe, learner, commit)
    elif learner.patience.best_step == learner.step:
        _raise_if_not_finite(learner)
        recipe.cadence.hold(learner.weights(), learner.step)


def _is_date(recipe: Recipe, learner: Learner) -> bool:
    """Return True if a checkpoint is due after the current step, whatever the clock says."""
    is_best = recipe.cadence.saves_best and learner.patience.best_step == learner.step
    return is_best or recipe.cadence.due(learner.step) or learner.patience.should_stop


def _raise_if_bad_score(learner: Learner, scores: dict[str, float]) -> None:
    """Raise BadScore if a score is not finite, or the monitored one is not defined."""
    for tag, score in {**scores, learner.patience.monitor: scores.get(learner.patience.monitor, math.nan)}.items():
        if not math.isfinite(score):
            raise BadScore(f"diverged at step {learner.step}: {tag} is {score} after this step", tag.partition("/")[0])


def _save(recipe: Recipe, learner: Learner, commit: _Commit) -> None:
    """Save a checkpoint of the current step; raise Diverged if one of its tensors is not finite."""
    _raise_if_not_finite(learner)
    recipe.division.settle(learner.model, learner.average.module)
    with recipe.cadence.saving(learner.step):
        commit()


def _raise_if_not_finite(learner: Learner) -> None:
    """Raise Diverged if a tensor of a checkpoint would not be finite."""
    if faults := learner.faults():
        raise Diverged(f"diverged at step {learner.step}: {faults[0]} is not finite after this step")
