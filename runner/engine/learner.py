"""All that changes during a run: exactly what a checkpoint holds, so that a resumed run cannot forget a part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from runner.engine.contracts import Average, Judge, Schedule
from runner.engine.direct import stepper, zeroer
from runner.engine.finite import Gate, named, not_finite, states


def let_run(score: float, step: int) -> bool:
    """Judge no run: each trains to its end."""
    return False


class Patience:
    """Keeps the best and the last scores by one monitored value and counts the validations since the best.

    A search gives it a judge, which may have the run end as `pruned`.
    """

    def __init__(self, monitor: str, *, limit: int | None, judge: Judge = let_run) -> None:
        self.monitor = monitor
        self.sign = -1.0 if monitor.endswith("/loss") else 1.0
        self.limit = math.inf if limit is None else limit
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.waited = 0
        self.judge = judge
        self.pruned = False

    def observe(self, scores: Mapping[str, float], step: int) -> bool:
        """Take in the scores of a step and tell whether they are the best (of equals the first; NaN never is)."""
        self.last = {**scores, "step": step}
        self.pruned = self.judge(scores[self.monitor], step)
        if not self.best or self.rank(self.last) > self.rank(self.best):
            self.best, self.waited = self.last, 0
            return True
        self.waited += 1
        return False

    def rank(self, scores: Mapping[str, float]) -> float:
        """Return the monitored value with larger as better, NaN as the worst."""
        value = self.sign * scores[self.monitor]
        return -math.inf if math.isnan(value) else value

    @property
    def best_step(self) -> int:
        """The step with the best scores, 0 before the first validation."""
        return int(self.best.get("step", 0))

    @property
    def spent(self) -> bool:
        """Whether as many validations as the limit have passed without a better score, or the run was judged."""
        return self.pruned or self.waited >= self.limit

    def state_dict(self) -> dict[str, Any]:
        """Return best and last scores, the validations since the best, and whether the run was judged."""
        return {"best": dict(self.best), "last": dict(self.last), "waited": self.waited, "pruned": self.pruned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.best, self.last, self.waited = dict(state["best"]), dict(state["last"]), state["waited"]
        self.pruned = state["pruned"]


class Observing(Protocol):
    """A schedule that may look at the scores of validations, and then has a state."""

    def __call__(self, step: int) -> float:
        """Return the factor on each group's learning rate after `step` optimizer steps."""
        ...

    def observe(self, score: float) -> None:
        """Take in the monitored score of a validation, larger being better."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        ...


class Pure:
    """A schedule that is a function of the step alone: it looks at no score and has no state."""

    def __init__(self, factor: Schedule) -> None:
        self.factor = factor

    def __call__(self, step: int) -> float:
        """Return the factor of a step."""
        return self.factor(step)

    def observe(self, score: float) -> None:
        """Look away."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing back."""


@dataclass
class Learner:
    """Model, optimizer and everything else that a step or a validation moves on; `step` is the only clock."""

    model: nn.Module
    preprocess: nn.Module
    optimizer: Optimizer
    schedule: Observing
    scaler: GradScaler
    average: Average
    patience: Patience
    step: int = 0

    def __post_init__(self) -> None:
        self.parameters = dict(self.model.named_parameters())
        self.gate = Gate(self.optimizer)
        self.zero_grad = zeroer(self.optimizer)
        self._bare_step = stepper(self.optimizer)
        self._meant = not_finite(dict(self.model.named_buffers()))  # an attention mask of -inf, say

    def take_step(self, loss: Tensor) -> None:
        """Move the weights by their gradients, but never by some, or by a loss (), that are not finite.

        A loss scaler skips such a step itself, and the run goes on with a smaller scale.
        """
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.gate.lets(loss):
            self._bare_step()

    def set_lr(self) -> float:
        """Give each parameter group the learning rate of this step and return the factor of those that never rest.

        The tensors of a group that has an end, `until`, rest from then on: no gradient is computed for them.
        """
        factor = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor if "until" not in group else self.rate(group, self.step)
            if self.step >= group.get("until", math.inf):
                rest(group)
        return factor

    def rate(self, group: Mapping[str, Any], step: int) -> float:
        """Return the learning rate of a group after `step` steps.

        A group that has an end goes through all of the schedule before it; from then on its rate is 0.
        """
        first: float = group["initial_lr"]
        if "until" not in group:
            return first * self.schedule(step)
        return first * self.schedule(int(step * group["pace"])) if step < group["until"] else 0.0

    def observe(self, scores: Mapping[str, float]) -> None:
        """Take in the scores of a validation after the present step."""
        self.patience.observe(scores, self.step)
        self.schedule.observe(self.patience.rank(scores))

    def faults(self) -> list[str]:
        """Return what is not finite, in words, of all that a checkpoint holds; waits for the device once."""
        tensors = named(self.model) | states(self.optimizer, self.parameters) | named(self.preprocess)
        if self.average.module is not self.model:
            tensors |= named(self.average.module, "averaged ")
        return [name for name in not_finite(tensors) if name.partition("buffer ")[2] not in self._meant]

    def weights(self) -> dict[str, Tensor]:
        """Return what evaluation needs: the averaged (or plain) model and the preprocessing statistics."""
        return prefixed("model", self.average.module) | prefixed("preprocess", self.preprocess)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights back into the module that evaluation reads."""
        self.average.module.load_state_dict(part("model", weights))
        self.preprocess.load_state_dict(part("preprocess", weights))

    def state_dict(self) -> dict[str, Any]:
        """Return everything beyond `weights` that the next step depends on."""
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
        """Take back what `state_dict` gave."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        lay_like_weights(self.optimizer)
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.average.load_state_dict(state["average"])
        self.patience.load_state_dict(state["patience"])


def rest(group: Mapping[str, Any]) -> None:
    """Have no gradients computed for the tensors of a group."""
    for parameter in group["params"]:
        parameter.requires_grad_(False)


def lay_like_weights(optimizer: Optimizer) -> None:
    """Lay each state tensor out in memory as its weight is: a run may go on in another memory format than it began in.

    Fused optimizers on the CPU go through both as blocks of memory and would mix up their elements.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state with `prefix.` before each name."""
    state = cast(Mapping[str, Tensor], module.state_dict())
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
