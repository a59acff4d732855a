"""Records the first steps of a run: what the recipe's functions get and return, and the tensors before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from runner.engine.contracts import Outcome
from runner.engine.invariants.batch_checks import Batches, label_range
from runner.engine.invariants.dropout_masks import Masks
from runner.engine.invariants.evidence import (
    Evidence,
    Sampled,
    Views,
    gradients_in,
    norms_of,
    sampled,
    sampled_gradients,
)
from runner.engine.invariants.judge import check_labels
from runner.engine.invariants.known import Known
from runner.engine.invariants.optimizer_checks import check_optimizer, check_rates
from runner.engine.invariants.violation import Violation
from runner.engine.learner import Learner
from runner.engine.losses import Loss
from runner.engine.recipe import Batch, Recipe

# Steps that are checked
STEPS = 3


class Recorder:
    """Makes the steps of a run with a recipe that records evidence.

    Args:
        recipe: The recipe of the run.
        learner: The state of the run.
        known: What is known of the run.
    """

    def __init__(self, recipe: Recipe, learner: Learner, known: Known) -> None:
        self._plain, self._learner, self._known = recipe, learner, known
        self.recipe = replace(
            recipe,
            forward=self._forward,
            loss=self._watched_loss(recipe.loss),
            penalties=[self._watched_penalty(i, each) for i, each in enumerate(recipe.penalties)],
            clip=self._clip,
            constraints=[self._after_optimizer, *recipe.constraints],
        )
        check_optimizer(learner)
        self.masks = Masks(learner.model if known.sees_modules else nn.Module())
        self.steps: list[Evidence] = []
        self._now: Evidence
        modules = (learner.model, learner.average.module) if known.formula else ()
        self._views = [Views([p for p in each.parameters() if p.numel()]) for each in modules]
        self.batches = Batches(known)
        self._parts: dict[tuple[tuple[int, bool], ...], tuple[Sampled, Sampled]] = {}
        self._seeds: list[int] = []
        self._passes = 0
        self._in_pass = False
        self._weights: dict[str, list[Tensor]] = {}

    def step(self, learner: Learner, images: Tensor, labels: Tensor) -> Generator[Batch, Tensor, Outcome]:
        """Make a step as the recipe's update does, and record it."""
        self._begin(learner, labels)
        requests = self._plain.update(self.recipe, learner, images, labels)
        with closing(requests):
            try:
                batch = next(requests)
                while True:
                    self._begin_pass()
                    loss = yield batch
                    self._end_pass(loss)
                    batch = requests.send(loss)
            except StopIteration as end:
                outcome: Outcome = end.value
        self._end()
        return outcome

    def _begin(self, learner: Learner, labels: Tensor) -> None:
        """Begin the evidence of a step."""
        check_rates(learner)
        trained, frozen = self._parts_of(learner.model)
        rates = {id(p): _number(g["lr"]) for g in learner.optimizer.param_groups for p in g["params"]}
        found = Evidence(learner.step + 1, trained, frozen, [rates.get(id(p), 0.0) for p in trained.tensors])
        found.device["before"] = trained.views.read()
        found.device["labels"] = label_range(labels, self._known.classes, learner.step + 1)
        if labels.is_cpu:
            # Before the loss fails at them
            check_labels(found, found.device["labels"].numpy(), self._known)
        if self.batches.repeated is not None:
            found.device["repeated"] = self.batches.repeated
        if self._known.formula and not self.steps:
            found.device["model"] = self._views[0].read()
        self._passes, self._now = 0, found
        self.masks.begin()

    def _parts_of(self, model: nn.Module) -> tuple[Sampled, Sampled]:
        """Return the parameters that are trained in this step, and those that are frozen."""
        parameters = {n: p for n, p in model.named_parameters() if not nn.parameter.is_lazy(p)}
        flags = tuple((id(p), p.requires_grad) for p in parameters.values())
        if flags not in self._parts:
            trained, frozen = ({n: p for n, p in parameters.items() if p.requires_grad is on} for on in (True, False))
            self._parts[flags] = sampled(trained), sampled(frozen)
        return self._parts[flags]

    def _begin_pass(self) -> None:
        """Begin to compute gradients."""
        self._in_pass = False
        self._weights = {f"penalty_weight {i}": [] for i in range(len(self._plain.penalties))}

    def _forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """Call the model, and look at the state in which the first micro-batch of a pass finds it."""
        if not self._in_pass:
            self._in_pass = True
            self._check_start(model)
        return self._plain.forward(model, images)

    def _check_start(self, model: nn.Module) -> None:
        """Look at modes, seeds and gradients before the first forward pass."""
        if not model.training:
            problem = "the model is in evaluation mode while it is trained"
            raise Violation("train_mode", self._now.step, problem, "what validation left, and train()", ("model",))
        if left := gradients_in(model):
            norms = norms_of(left)
            before = self._now.device.get("left")
            self._now.device["left"] = norms if before is None else torch.cat([before, norms])
        if self._passes == 0:
            seed = torch.default_generator.initial_seed()
            if seed in self._seeds:
                problem = "torch's random generator has the seed of a step before, so that dropout repeats its masks"
                raise Violation("dropout", self._now.step, problem, "the seeds of the steps", ("model", "update"))
            self._seeds.append(seed)

    def _watched_loss(self, loss: Any) -> Any:
        """Return the loss, which also notes with what factor it enters the gradients."""
        train = loss.train if isinstance(loss, Loss) else loss

        def watched(logits: Tensor, labels: Tensor) -> Tensor:
            value: Tensor = train(logits, labels)
            self._note(value, "loss_weight")
            return value

        return replace(loss, train=watched) if isinstance(loss, Loss) else watched

    def _watched_penalty(self, number: int, penalty: Callable[[nn.Module], Tensor]) -> Callable[[nn.Module], Tensor]:
        """Return a penalty, which also notes with what factor it enters the gradients."""

        def watched(model: nn.Module) -> Tensor:
            value = penalty(model)
            self._note(value, f"penalty_weight {number}")
            return value

        return watched

    def _note(self, value: Tensor, key: str) -> None:
        """Note the gradient of a value, which is the factor on it."""
        if isinstance(value, Tensor) and value.requires_grad and value.ndim == 0:
            noted = self._weights.setdefault(key, [])
            noted.append(torch.zeros((), device=value.device))
            value.register_hook(lambda gradient: noted.append(gradient.detach().float().clone()))  # type: ignore[no-untyped-call]
        else:
            # Nothing that is trained depends on it
            self._weights[key] = [torch.full((), math.nan)]

    def _end_pass(self, loss: Tensor) -> None:
        """Look at the gradients that a pass has computed."""
        now, learner = self._now, self._learner
        self._passes += 1
        scale: Tensor | float = 1.0
        if learner.scaling:
            scale = learner.scaler.scale(torch.ones((), device=loss.device))
            now.device["scale"], now.device["arrived"] = scale, sampled_gradients(now.trained.tensors)
        adds = float(self._plain.division.adds_penalties)
        penalties = {f"penalty_weight {number}": adds for number in range(len(self._plain.penalties))}
        expected = {"loss_weight": self._known.loss_weight, **penalties}
        for key, found in self._weights.items():
            factor = expected.get(key, 1.0)
            if factor:
                total = torch.stack(found).sum() if found else torch.zeros((), device=loss.device)
                now.device[key] = total / (scale * factor)
        now.device["loss"] = loss.detach()
        now.device["frozen"] = now.frozen.views.read()
        self._note_gradients()

    def _note_gradients(self) -> None:
        """Note the gradients as they are before the optimizer's step."""
        now = self._now
        now.device["norms"] = norms_of(gradients_in(self._learner.model))
        now.device["grad"] = sampled_gradients(now.trained.tensors)

    def _clip(self, model: nn.Module) -> Tensor | None:
        """Clip the gradients, and look at them before and after."""
        now = self._now
        if self._learner.scaling:
            now.device["clipped"] = sampled_gradients(now.trained.tensors)
        norm = self._plain.clip(model)
        if self._known.excess:
            now.device["excess"] = self._known.excess(model)
        if self._known.excess or self._learner.scaling:
            self._note_gradients()
        return norm

    def _after_optimizer(self, model: nn.Module) -> None:
        """Look at the weights after the optimizer's step, before constraints and averages change them."""
        self._now.device["after"] = self._now.trained.views.read()
        self._now.device["frozen_after"] = self._now.frozen.views.read()

    def _end(self) -> None:
        """End the evidence of a step."""
        now, learner = self._now, self._learner
        if "after" not in now.device:
            self._after_optimizer(learner.model)
        if self._known.formula:
            now.device["model_after"] = self._views[0].read()
            now.device["average"] = self._views[1].read()
        now.device.update(self.masks.take())
        self.steps.append(now)


def _number(rate: Any) -> float:
    """Return a learning rate; NaN, which no check takes for a rate, where it is a tensor on a device."""
    return math.nan if isinstance(rate, Tensor) else float(rate)
