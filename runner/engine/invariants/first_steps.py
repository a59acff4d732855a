"""Records the first steps of a run: what the recipe's functions get and return, and the tensors before and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from runner.engine.contracts import Outcome
from runner.engine.invariants.dropout_masks import Masks
from runner.engine.invariants.evidence import (
    Evidence,
    Sampled,
    gradients_in,
    norms_of,
    pixels_of,
    sample,
    sampled,
    sampled_gradients,
)
from runner.engine.invariants.judge import check_labels
from runner.engine.invariants.known import Known
from runner.engine.invariants.violation import Violation
from runner.engine.learner import Learner
from runner.engine.losses import Loss
from runner.engine.recipe import Batch, Recipe

# Steps that are checked
STEPS = 3
# Examples of a batch below which two equal ones may be chance
_FEWEST = 8


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
        self._batch: tuple[Tensor, Tensor] | None = None
        self._repeated: Tensor | None = None
        # Of a batch with the labels of the one before, which is the same for all of them
        self._chance: Tensor | None = None
        self._parts: dict[tuple[tuple[int, bool], ...], tuple[Sampled, Sampled]] = {}
        self._seeds: list[int] = []
        self._passes = 0
        self._in_pass = False
        self._weights: dict[str, list[Tensor]] = {}

    def see_batch(self, images: Tensor, labels: Tensor) -> None:
        """Compare a batch, before it is mixed, with that of the step before."""
        before, self._batch = self._batch, (pixels_of(images), labels.detach().clone())
        self._repeated = None
        if not self._known.several_batches or before is None or len(images) < _FEWEST:
            return
        (old, old_labels), (new, new_labels) = before, self._batch
        if old.shape == new.shape and old_labels.shape == new_labels.shape:
            alike = (old == new).all() & (new != new[:1]).any()
            if self._chance is None:
                self._chance = _log_chance(new_labels, self._known.classes)
            self._repeated = torch.stack([(old_labels == new_labels).all().double(), alike.double(), self._chance])

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
        found.device["before"] = sample(trained.tensors)
        found.device["labels"] = self._label_range(labels, learner.step + 1)
        if labels.is_cpu:
            # Before the loss fails at them
            check_labels(found, found.device["labels"].numpy(), self._known)
        if self._repeated is not None:
            found.device["repeated"] = self._repeated
        if self._known.formula and not self.steps:
            found.device["model"] = sample([p for p in learner.model.parameters() if p.numel()])
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

    def _label_range(self, labels: Tensor, step: int) -> Tensor:
        """Return the smallest and the largest label, of soft ones the smallest value and the range of sums."""
        width = labels.shape[1] if labels.ndim == 2 else self._known.classes
        if labels.ndim > 2 or labels.is_floating_point() != (labels.ndim == 2) or width != self._known.classes:
            problem = f"labels are {str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
            wanted = f"must be integers (B,) or numbers (B, {self._known.classes})"
            raise Violation("labels", step, f"{problem}, {wanted}", "mix and the data set's labels", ("mix", "data"))
        if labels.ndim == 1:
            return torch.stack([labels.min(), labels.max()]).double()
        sums = labels.detach().float().sum(1)
        return torch.stack([labels.detach().float().min(), labels.detach().float().max(), sums.min(), sums.max()])

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
        expected = {"loss_weight": self._known.loss_weight}
        for key, found in self._weights.items():
            factor = expected.get(key, 1.0)
            if factor:
                total = torch.stack(found).sum() if found else torch.zeros((), device=loss.device)
                now.device[key] = total / (scale * factor)
        now.device["loss"] = loss.detach()
        now.device["frozen"] = sample(now.frozen.tensors)
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
        self._now.device["after"] = sample(self._now.trained.tensors)
        self._now.device["frozen_after"] = sample(self._now.frozen.tensors)

    def _end(self) -> None:
        """End the evidence of a step."""
        now, learner = self._now, self._learner
        if "after" not in now.device:
            self._after_optimizer(learner.model)
        if self._known.formula:
            now.device["model_after"] = sample([p for p in learner.model.parameters() if p.numel()])
            now.device["average"] = sample([p for p in learner.average.module.parameters() if p.numel()])
        now.device.update(self.masks.take())
        self.steps.append(now)


def _number(rate: Any) -> float:
    """Return a learning rate; NaN, which no check takes for a rate, where it is a tensor on a device."""
    return math.nan if isinstance(rate, Tensor) else float(rate)


def _log_chance(labels: Tensor, classes: int) -> Tensor:
    """Return the logarithm of the chance () that another batch has the same labels (B,) in the same order."""
    shares = (labels[:, None] == torch.arange(classes, device=labels.device)).double().mean(0)
    return len(labels) * shares.square().sum().log()


def check_rates(learner: Learner) -> None:
    """Raise if the learning rate of a parameter group is not that of the schedule."""
    step = learner.step
    factor = learner.schedule(step)
    for group in learner.optimizer.param_groups:
        wanted = learner.rate(group, step) if "active" in group else group["initial_lr"] * factor
        if not isinstance(group["lr"], Tensor) and not math.isclose(group["lr"], wanted, rel_tol=1e-6, abs_tol=0.0):
            if math.isnan(group["lr"]) and math.isnan(wanted):
                continue
            problem = f"the learning rate of '{group.get('name')}' is {group['lr']:.6g}, the schedule says {wanted:.6g}"
            raise Violation("lr", step + 1, problem, "scheduler and what sets lr", ("optim", "scheduler"))


def check_optimizer(learner: Learner) -> None:
    """Raise if the optimizer does not have each trainable tensor exactly once."""
    counts = Counter(id(p) for group in learner.optimizer.param_groups for p in group["params"])
    for name, p in learner.model.named_parameters():
        count = counts[id(p)]
        if count > 1 or (count == 0 and p.requires_grad):
            problem = (
                f"the optimizer has the weight {name} {count} times"
                if count
                else (f"the optimizer does not have the weight {name}, which is trainable")
            )
            advice = "the parameter groups of the optimizer (requires_grad=False freezes a weight)"
            raise Violation("optimizer", learner.step + 1, problem, advice, ("optim", "model"))
