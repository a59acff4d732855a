"""The learner: all state that changes during a run. A checkpoint stores exactly this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.engine.contracts import Average
from runner.engine.fast_step import Stepper, present_gradients
from runner.engine.finite import Gate, named_tensors, not_finite, optimizer_tensors
from runner.engine.interruption import Stop
from runner.engine.loss_scaler import LossScaler
from runner.engine.patience import Patience
from runner.engine.posterior import evaluation_state, load_posterior
from runner.engine.saving.held_weights import HeldWeights, StepWeights
from runner.engine.schedules import (
    FixedMomentum,
    Freezing,
    MomentumCycle,
    NeverFrozen,
    Observing,
    own_step,
    rate_tags,
)
from runner.engine.snapshots import NoSnapshots, Snapshots
from runner.engine.state_dict import StateDict, load_part, load_state, part_versions

# Prepares the averaged model for a validation, unless it is stopped, and returns what to log
Recalibrate = Callable[["Learner", Stop], dict[str, float]]


def no_recalibration(learner: Learner, stop: Stop) -> dict[str, float]:
    """Leave the statistics as they are: for models without BatchNorm, and averages that take or need no others."""
    return {}


@dataclass
class Learner:
    """The state of a run: everything that a step or a validation changes.

    Attributes:
        model: The model in training.
        preprocess: The module that turns raw images into inputs; its buffers are part of the weights.
        optimizer: The optimizer; each parameter group has a `name` and an `initial_lr`.
        schedule: The learning-rate schedule.
        scaler: The loss scaler of fp16; disabled in other precisions.
        average: The weight average, whose `module` is evaluated.
        patience: The early stopping.
        stepper: Calls the optimizer; has no state to save.
        gate: Skips non-finite steps; has no state to save.
        momentum: Sets the momentum where the schedule cycles it.
        freezing: Freezes parameter groups outside their window of steps.
        at_step: Set modules by the step, such as a drop rate that grows.
        recalibrate: Prepares the averaged model for a validation (`runner.engine.recalibration`); returns what to log.
        step: The number of optimizer steps done.
    """

    model: nn.Module
    preprocess: nn.Module
    optimizer: Optimizer
    schedule: Observing
    scaler: LossScaler
    average: Average
    patience: Patience
    stepper: Stepper
    gate: Gate
    momentum: MomentumCycle | FixedMomentum = field(default_factory=FixedMomentum)
    freezing: Freezing | NeverFrozen = field(default_factory=NeverFrozen)
    at_step: Sequence[Callable[[int], None]] = ()
    recalibrate: Recalibrate = no_recalibration
    step: int = 0

    def __post_init__(self) -> None:
        self.parameters = dict(self.model.named_parameters())
        self.scaling = self.scaler.is_enabled()
        self.zero_grad = self.stepper.zero_grad
        self.snapshots: Snapshots = getattr(self.average, "snapshots", None) or NoSnapshots()
        self._set_by_step()
        self._rate_tags = rate_tags(self.optimizer.param_groups)
        # Some buffers are infinite from the start, such as an attention mask of -inf.
        self._infinite_by_design = not_finite(dict(self.model.named_buffers()))

    def step_optimizer(self, loss: Tensor) -> None:
        """Step the optimizer, unless the loss () or a gradient is not finite: then weights and state do not change.

        With a loss scaler, the scaler skips such a step and reduces its scale, and the run continues.
        """
        if self.scaling:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            gradients = present_gradients(self.optimizer)
            if self.gate.check(loss, gradients):
                self.stepper.step(gradients)

    def set_lr(self) -> float:
        """Set learning rates, drop rates and so on of the next step; return the factor of groups without a window."""
        factor = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor if "active" not in group else self.rate(group, self.step)
        self.momentum.apply(self.step)
        self._set_by_step()
        return factor

    def _set_by_step(self) -> None:
        """Freeze the groups that do not train in the next step, and set the modules that follow the step."""
        self.freezing.apply(self.step)
        for apply in self.at_step:
            apply(self.step)

    def rate(self, group: Mapping[str, Any], step: int) -> float:
        """Return the learning rate of a parameter group after `step` steps; 0 while it is frozen."""
        initial: float = group["initial_lr"]
        at = own_step(group, step)
        return 0.0 if at is None else float(initial * at[1] * self.schedule(at[0]))

    def rates(self) -> dict[str, float]:
        """Return what the schedule sets, to be logged by tag.

        `train/lr`, `train/lr/<label>` if groups differ, and `train/momentum` if it is cycled.
        """
        groups = self.optimizer.param_groups
        return {tag: groups[number]["lr"] for tag, number in self._rate_tags.items()} | self.momentum.values()

    def record_scores(self, scores: Mapping[str, float]) -> None:
        """Pass the scores of the validation after the current step to early stopping and to the schedule."""
        self.patience.observe(scores, self.step)
        self.schedule.observe(self.patience.rank(scores))

    def faults(self) -> list[str]:
        """Return the names of the checkpoint's tensors that are not finite; waits for the device."""
        tensors = (
            named_tensors(self.model)
            | optimizer_tensors(self.optimizer, self.parameters)
            | named_tensors(self.preprocess)
        )
        if self.average.module is not self.model:
            tensors |= named_tensors(self.average.module, "averaged ")
        return [name for name in not_finite(tensors) if name.partition("buffer ")[2] not in self._infinite_by_design]

    def weights(self) -> StateDict:
        """Return the tensors that evaluation needs: the model (averaged, if weights are averaged) and `preprocess`."""
        return evaluation_state(self.average.module, self.preprocess)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load the result of `weights` into the evaluated model and into `preprocess`."""
        load_part("model", self.average.module, weights)
        load_part("preprocess", self.preprocess, weights)
        load_posterior(self.average.module, weights)

    def earlier_weights(self, held: HeldWeights) -> list[StepWeights]:
        """Return the weights of earlier steps that no checkpoint has yet: the best ones, if held, and snapshots."""
        best = held.of(self.patience.best_step)
        found = {each.step: each for each in self.snapshots.unsaved(self.step, self.preprocess)}
        found |= {best.step: best} if best else {}
        return [found[step] for step in sorted(found) if step < self.step]

    @property
    def kept_steps(self) -> list[int]:
        """Return the steps whose weights a run never removes: those of the best validation and of snapshots."""
        return [self.patience.best_step, *self.snapshots.until(self.step)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs besides `weights`."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict(),
            "patience": self.patience.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Restore a state that `state_dict` returned; `weights` are those of the same checkpoint.

        They say which versions of its modules the model had, too: the averaged model is a copy of it.
        """
        self.step = state["step"]
        load_state(self.model, state["model"], part_versions("model", weights))
        self.optimizer.load_state_dict(_completed(self.optimizer, state["optimizer"]))
        _check_shapes(self.optimizer)
        match_memory_format(self.optimizer)
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.average.load_state_dict(state["average"])
        self.patience.load_state_dict(state["patience"])


def _completed(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved state of an optimizer, completed with the group options that an older version did not save."""
    current, saved = optimizer.state_dict()["param_groups"], state["param_groups"]
    if len(current) != len(saved):
        # `Optimizer.load_state_dict` raises the error.
        return dict(state)
    return {**state, "param_groups": [{**new, **old} for new, old in zip(current, saved, strict=True)]}


def _check_shapes(optimizer: Optimizer) -> None:
    """Raise ValueError if a fused optimizer's state has another shape than its parameter.

    The fused kernels do not check it and would write outside the tensor's memory.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, value in optimizer.state.get(parameter, {}).items():
                shape = torch.Size() if name == "step" else parameter.shape
                if isinstance(value, Tensor) and value.shape != shape:
                    raise ValueError(f"the optimizer's {name} has shape {tuple(value.shape)}, must have {tuple(shape)}")


def match_memory_format(optimizer: Optimizer) -> None:
    """Give each state tensor the strides of its parameter, because a run may resume in another memory format.

    Fused optimizers on the CPU loop over both in memory order. With different strides they would combine the wrong
    elements.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and strides(value) != strides(parameter):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def is_dense(tensor: Tensor) -> bool:
    """Return True if the elements of a tensor fill a block of memory, each one once; their order is arbitrary.

    A view such as `weight[:, ::2]` is not dense: it leaves elements out.
    """
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 0:
            return True
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def strides(tensor: Tensor) -> list[int]:
    """Return the strides of a tensor for its dimensions of more than one element; the others are arbitrary."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
