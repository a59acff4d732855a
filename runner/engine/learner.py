"""Everything that changes during a run: exactly what a checkpoint holds, so that a resumed run misses no part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from runner.engine.contracts import Average
from runner.engine.fast_step import Stepper, present_gradients
from runner.engine.finite import Gate, named, not_finite, states
from runner.engine.patience import Patience
from runner.engine.schedules import Freezing, NeverFrozen, Observing, rate_tags


@dataclass
class Learner:
    """Model, optimizer and everything else that a step or a validation changes; `step` is the only clock.

    `stepper` steps the optimizer and `gate` decides whether it may; both belong to `optimizer` and have no state of
    their own.
    """

    model: nn.Module
    preprocess: nn.Module
    optimizer: Optimizer
    schedule: Observing
    scaler: GradScaler
    average: Average
    patience: Patience
    stepper: Stepper
    gate: Gate
    freezing: Freezing | NeverFrozen = field(default_factory=NeverFrozen)
    step: int = 0

    def __post_init__(self) -> None:
        self.parameters = dict(self.model.named_parameters())
        self.scaling = self.scaler.is_enabled()
        self.zero_grad = self.stepper.zero_grad
        self.freezing.apply(self.step)
        self._rate_tags = rate_tags(self.optimizer.param_groups)
        # Buffers that are infinite on purpose, such as an attention mask of -inf.
        self._infinite_by_design = not_finite(dict(self.model.named_buffers()))

    def step_optimizer(self, loss: Tensor) -> None:
        """Step the optimizer, unless the loss () or a gradient is not finite: then all weights and its state stay.

        A loss scaler skips such a step itself, and the run continues with a smaller scale.
        """
        if self.scaling:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            gradients = present_gradients(self.optimizer)
            if self.gate.check(loss, gradients):
                self.stepper.step(gradients)

    def set_lr(self) -> float:
        """Give each parameter group the learning rate of this step, and freeze the groups that it does not train.

        Return the factor of the groups that are always trained.
        """
        factor = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor if "active" not in group else self.rate(group, self.step)
        self.freezing.apply(self.step)
        return factor

    def rate(self, group: Mapping[str, Any], step: int) -> float:
        """Return the learning rate of a group after `step` steps.

        A group with a window goes through the whole schedule, warm-up included, inside it: the schedule runs `pace`
        times as fast. Outside its rate is 0.
        """
        initial: float = group["initial_lr"]
        if "active" not in group:
            return initial * self.schedule(step)
        first, end = group["active"]
        return initial * self.schedule(int((step - first) * group["pace"])) if first <= step < end else 0.0

    def rates(self) -> dict[str, float]:
        """Return the learning rates to log, by tag: `train/lr`, and `train/lr/<label>` where groups differ."""
        groups = self.optimizer.param_groups
        return {tag: groups[number]["lr"] for tag, number in self._rate_tags.items()}

    def record_scores(self, scores: Mapping[str, float]) -> None:
        """Record the scores of a validation after the present step."""
        self.patience.observe(scores, self.step)
        self.schedule.observe(self.patience.rank(scores))

    def faults(self) -> list[str]:
        """Return the names of all tensors in a checkpoint that are not finite; waits for the device once."""
        tensors = named(self.model) | states(self.optimizer, self.parameters) | named(self.preprocess)
        if self.average.module is not self.model:
            tensors |= named(self.average.module, "averaged ")
        return [name for name in not_finite(tensors) if name.partition("buffer ")[2] not in self._infinite_by_design]

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors that evaluation needs: the averaged (or plain) model and the preprocessing statistics."""
        return _prefixed("model", self.average.module) | _prefixed("preprocess", self.preprocess)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights into the module that evaluation reads."""
        self.average.module.load_state_dict(_part("model", weights))
        self.preprocess.load_state_dict(_part("preprocess", weights))

    def state_dict(self) -> dict[str, Any]:
        """Return everything besides `weights` that the next step depends on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict(),
            "patience": self.patience.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(_completed(self.optimizer, state["optimizer"]))
        _check_shapes(self.optimizer)
        lay_like_weights(self.optimizer)
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.average.load_state_dict(state["average"])
        self.patience.load_state_dict(state["patience"])


def _completed(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved state of an optimizer with the group entries that older versions did not save."""
    now, saved = optimizer.state_dict()["param_groups"], state["param_groups"]
    if len(now) != len(saved):  # torch refuses it
        return dict(state)
    return {**state, "param_groups": [{**mine, **theirs} for mine, theirs in zip(now, saved, strict=True)]}


def _check_shapes(optimizer: Optimizer) -> None:
    """Raise ValueError if a fused optimizer's state has another shape than its weight: kernels would write past it."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, value in optimizer.state.get(parameter, {}).items():
                shape = torch.Size() if name == "step" else parameter.shape
                if isinstance(value, Tensor) and value.shape != shape:
                    raise ValueError(f"the optimizer's {name} is {tuple(value.shape)}, its weight {tuple(shape)}")


def lay_like_weights(optimizer: Optimizer) -> None:
    """Give each state tensor the memory layout of its weight: a run may be resumed in another memory format.

    Fused optimizers on the CPU read both as blocks of memory and would otherwise mix up their elements.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and strides(value) != strides(parameter):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def strides(tensor: Tensor) -> list[int]:
    """Return the strides of a tensor without those of dimensions of size 1, which mean nothing."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state with `prefix.` before each name."""
    state = cast(Mapping[str, Tensor], module.state_dict())
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def _part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
