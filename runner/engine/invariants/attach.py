"""The parts of a run with the checks around them; after the third step, the parts are called as they are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from runner.engine.contracts import Numbers, Outcome, Predict
from runner.engine.invariants.first_steps import STEPS, Recorder
from runner.engine.invariants.judge import check_all
from runner.engine.invariants.known import Known
from runner.engine.invariants.purity import unchanged
from runner.engine.invariants.saved import check_saved
from runner.engine.invariants.violation import Violation
from runner.engine.learner import Learner
from runner.engine.logs.log import Log
from runner.engine.losses import Prediction
from runner.engine.recipe import Batch, Recipe
from runner.engine.transfer import to_host

# The tag of the evidence in the log's buffer; no row has it
_TAG = "invariants"
_Commit = Callable[[], None]
_Step = Callable[[Learner, Tensor, Tensor], Generator[Batch, Tensor, Outcome]]


class NoInvariants:
    """Checks nothing."""

    def around(
        self, recipe: Recipe, learner: Learner, log: Log, commit: _Commit, folder: Path
    ) -> tuple[Recipe, _Commit]:
        """Return the recipe and the commit as they are."""
        return recipe, commit


@dataclass(frozen=True)
class Invariants(NoInvariants):
    """Checks the first steps of a run, its first validation and its first checkpoint."""

    known: Known

    def around(
        self, recipe: Recipe, learner: Learner, log: Log, commit: _Commit, folder: Path
    ) -> tuple[Recipe, _Commit]:
        """Return the recipe and the commit with checks around them.

        Args:
            recipe: The recipe of the run.
            learner: The state of the run, at its first step.
            log: Its buffer takes the evidence to the host.
            commit: Saves a checkpoint.
            folder: The run folder.

        Raises:
            Violation: The optimizer does not have each trainable tensor once; later ones are raised by what it returns.
        """
        devices = {p.device for p in learner.model.parameters()}
        if len(devices) != 1:
            # One sample cannot hold tensors of several devices
            return recipe, commit
        checks = _Checks(recipe, learner, log, self.known, folder, commit)
        return checks.recipe, checks.commit


class _Checks:
    """The checks of one run; each function is replaced by the plain one when its work is done."""

    def __init__(self, recipe: Recipe, learner: Learner, log: Log, known: Known, folder: Path, commit: _Commit) -> None:
        self._plain, self._learner, self._log, self._known = recipe, learner, log, known
        self._folder, self._plain_commit = folder, commit
        self._recorder: Recorder | None = Recorder(recipe, learner, known)
        self._inner = self._recorder.recipe
        self._arrived: list[Any] | None = None
        self._on_host = _is_on_host(learner.model)
        self._mix: Callable[[Tensor, Tensor, int], Batch] = self._see_batch
        self._step: _Step = self._checked_step
        self._predict: Predict = recipe.predict
        self._validation: Callable[[Learner], AbstractContextManager[None]] = self._first_validation
        self._save: _Commit = self._first_save
        self.recipe = replace(
            recipe,
            mix=lambda images, labels, step: self._mix(images, labels, step),
            update=lambda _, learner, images, labels: self._step(learner, images, labels),
            gradients=lambda _, learner, images, labels: recipe.gradients(self._inner, learner, images, labels),
            predict=lambda model, images: self._predict(model, images),
            watch_validation=lambda learner: self._validation(learner),
        )

    def commit(self) -> None:
        """Save a checkpoint, the first one with a check."""
        self._save()

    def _see_batch(self, images: Tensor, labels: Tensor, step: int) -> Batch:
        if self._recorder is not None:
            self._recorder.batches.see(images, labels)
        return self._plain.mix(images, labels, step)

    def _plain_step(self, learner: Learner, images: Tensor, labels: Tensor) -> Generator[Batch, Tensor, Outcome]:
        return self._plain.update(self._plain, learner, images, labels)

    def _checked_step(self, learner: Learner, images: Tensor, labels: Tensor) -> Generator[Batch, Tensor, Outcome]:
        """Make one of the first steps and record it; the last one ends the recording."""
        assert self._recorder is not None
        outcome = yield from self._recorder.step(learner, images, labels)
        if len(self._recorder.steps) == STEPS:
            self._end_recording()
        return outcome

    def _waiting_step(self, learner: Learner, images: Tensor, labels: Tensor) -> Generator[Batch, Tensor, Outcome]:
        """Make a plain step, after the evidence was judged if the log has copied it meanwhile."""
        self._judge_if_arrived()
        return self._plain_step(learner, images, labels)

    def _end_recording(self) -> None:
        """Let the next steps be plain, and judge on the CPU, or give the log the evidence."""
        self._restore()
        self._step = self._waiting_step
        if self._on_host:
            self._judge(to_host(self._tensors()))
            self._forget()
        else:
            self._log.add(self._learner.step, {_TAG: Numbers(self._tensors(), self._receive)})

    def _restore(self) -> None:
        """Let the recipe's functions be the plain ones again."""
        if self._recorder is not None:
            self._recorder.masks.close()
        self._inner, self._mix = self._plain, self._plain.mix

    def _forget(self) -> None:
        """Drop the evidence, which was judged."""
        self._recorder, self._arrived, self._step = None, None, self._plain_step

    def _tensors(self) -> list[Tensor]:
        steps = self._recorder.steps if self._recorder is not None else []
        return [tensor for one in steps for tensor in one.device.values()]

    def _receive(self, values: list[Any]) -> dict[str, float]:
        """Take the evidence from the log, in which it leaves no number."""
        self._arrived = values
        return {}

    def _judge_if_arrived(self) -> None:
        if self._arrived is not None:
            self._judge(self._arrived)
            self._forget()

    def _judge(self, values: list[Any]) -> None:
        """Raise a Violation if an invariant does not hold in the steps so far."""
        steps = self._recorder.steps if self._recorder is not None else []
        arrived = iter(values)
        for one in steps:
            one.host = {key: next(arrived) for key in one.device}
        if steps:
            check_all(steps, self._known)

    @contextmanager
    def _first_validation(self, learner: Learner) -> Iterator[None]:
        """Check that the first validation changes nothing, and predicts in evaluation mode."""
        self._validation, self._predict = self._plain.watch_validation, self._checked_prediction
        with unchanged(learner, self._plain.reseed if self._known.predicts_alike else None):
            yield
        self._predict = self._plain.predict

    def _checked_prediction(self, model: nn.Module, images: Tensor) -> Prediction | Tensor:
        if model.training:
            problem = "the model is in training mode while it is validated"
            raise Violation("evaluation", self._learner.step, problem, "eval() and train() of the model", ("model",))
        return self._plain.predict(model, images)

    def _first_save(self) -> None:
        """Judge the steps so far, save the first checkpoint, and compare it with the memory."""
        if self._recorder is not None and self._step == self._checked_step:
            # Earlier than the third step; a checkpoint waits for the device in any case
            self._judge(to_host(self._tensors()))
            if self._learner.step >= self._plain.total_steps:
                self._restore()
                self._forget()
        self._plain_commit()
        self._judge_if_arrived()
        self._save = self._plain_commit
        check_saved(self._folder, self._learner)


def _is_on_host(model: nn.Module) -> bool:
    """True if the numbers of a model are read without waiting for a device."""
    return next(model.parameters()).is_cpu
