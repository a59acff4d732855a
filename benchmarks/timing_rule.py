"""The timing rule of the published 94 % script: which seconds of a run count (see `benchmarks.speedrun`)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from runner.assemble import Experiment
from runner.engine.evaluation import evaluate
from runner.engine.logs.log import Log
from runner.engine.patience import Patience
from runner.engine.train import train
from runner.registry import build


@dataclass
class Result:
    """A run by the rule: accuracies after each epoch, with plain and with augmented views, and the seconds counted."""

    epochs: list[float]
    last: float
    seconds: float


def by_the_rule(made: Experiment, init: dict[str, Any], log: Log, *, scored: bool = True) -> Result:
    """Train an experiment from its first step on and return what came of it, by the rule above."""
    clock, scores = Clock(made.device), []
    test = made.test() if made.test else made.validation["val"]
    plain = replace(made.recipe, predict=build("predict", {"name": "plain"}))
    clock.start()
    images = next(made.batches.stream(0, 1))[0]
    build("init", init, images=images)(copy.deepcopy(made.learner.model).cpu())  # for the time; it was done at assembly
    clock.stop()
    per_epoch = made.recipe.steps_per_epoch
    for end in [*range(per_epoch, made.recipe.total_steps, per_epoch), made.recipe.total_steps]:
        clock.start()
        train(replace(made.recipe, total_steps=end), made.learner, made.batches, {}, log, lambda: None)
        clock.stop()
        if scored:
            scores.append(evaluate(plain, made.learner, test)["accuracy"])
    clock.start()
    last = evaluate(made.recipe, made.learner, test)["accuracy"]
    clock.stop()
    return Result(scores, last, clock.seconds)


def rewinder(made: Experiment) -> Callable[[], None]:
    """Return a function that puts an experiment back to where it is now, its compiled code kept."""
    learner = made.learner
    state, weights = copy.deepcopy(learner.state_dict()), copy.deepcopy(learner.weights())
    trained = [p for p in learner.model.parameters() if p.requires_grad]

    def rewind() -> None:
        learner.load_state_dict(state)
        learner.load_weights(weights)
        for parameter in trained:  # some rest by the end
            parameter.requires_grad_(True)

    return rewind


class Unscored(Patience):
    """Looks at no score: the rule evaluates outside the training."""

    def observe(self, scores: Mapping[str, float], step: int) -> bool:
        """Look away."""
        return False

    def rank(self, scores: Mapping[str, float]) -> float:
        """Return the same for all."""
        return 0.0


class Clock:
    """Counts the seconds between `start` and `stop`, when the device has done all that was asked of it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0

    def start(self) -> None:
        """Go on."""
        self.wait()
        self.begun = time.perf_counter()

    def stop(self) -> None:
        """Count what has passed."""
        self.wait()
        self.seconds += time.perf_counter() - self.begun

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
