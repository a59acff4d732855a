"""Functions of the step: learning-rate factors, momentum, and which parameter groups are frozen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from runner.engine.contracts import Schedule
from runner.engine.parts import has_running_statistics

# Exceeds the rounding error of a quotient and a product, and is less than a step
_NUDGE = 1 + 1e-15


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
    """A schedule that is a function of the step alone: it ignores scores and has no state."""

    def __init__(self, factor: Schedule) -> None:
        self.factor, self.cycle_ends = factor, cycle_ends(factor)

    def __call__(self, step: int) -> float:
        """Return the factor of a step."""
        return self.factor(step)

    def observe(self, score: float) -> None:
        """Ignore the score."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class WithMomentum(Pure):
    """A schedule that also gives the momentum in each step, as a second function of the step."""

    def __init__(self, factor: Schedule, momentum: Callable[[int], float]) -> None:
        super().__init__(factor)
        self.momentum = momentum


def own_step(group: Mapping[str, Any], step: int) -> tuple[int, float] | None:
    """Return the step of the schedule for a parameter group after `step` steps, and the factor on its learning rate.

    A group with a window (`active`) runs the whole schedule, including warm-up, within it, `pace` times as fast. One
    with several `phases`, each [first, end, pace, factor], runs the whole schedule in each of them. None outside of
    these: it is frozen.
    """
    if "active" not in group:
        return step, 1.0
    for first, end, pace, factor in group.get("phases") or [[*group["active"], group["pace"], 1.0]]:
        if first <= step < end:
            # The pace is a rounded quotient: without the nudge, a product that should be whole may end just below
            return int((step - first) * pace * _NUDGE), factor
    return None


class MomentumCycle:
    """Sets the momentum of each parameter group, and the first of its `betas`, before each step.

    Like the learning rate, it follows from the step alone, so a resumed run needs no state.
    """

    def __init__(self, optimizer: Optimizer, momentum: Callable[[int], float]) -> None:
        self._optimizer, self._momentum = optimizer, momentum

    def apply(self, step: int) -> None:
        """Set the momentum of the next step; `step` is the number of steps done before."""
        for group in self._optimizer.param_groups:
            at = own_step(group, step)
            if at is None:
                continue
            value = self._momentum(at[0])
            # An optimizer whose groups have both, such as Muon, reads one of them
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            if "momentum" in group:
                group["momentum"] = value

    def values(self) -> dict[str, float]:
        """Return the momentum of the first group, to be logged."""
        group = self._optimizer.param_groups[0]
        return {"train/momentum": group["momentum"] if "momentum" in group else group["betas"][0]}


class FixedMomentum:
    """Leaves the momentum as the optimizer has it."""

    def apply(self, step: int) -> None:
        """Do nothing."""

    def values(self) -> dict[str, float]:
        """Return nothing to log."""
        return {}


class Shifted:
    """A schedule that begins at a later step than the run: it is at its own first step there."""

    def __init__(self, schedule: Observing, first: int) -> None:
        self._schedule, self._first = schedule, first
        self.observe, self.state_dict = schedule.observe, schedule.state_dict
        self.load_state_dict = schedule.load_state_dict
        if isinstance(schedule, WithMomentum):
            self.momentum = lambda step: schedule.momentum(step - first)
        self.cycle_ends = tuple(first + end for end in cycle_ends(schedule))

    def __call__(self, step: int) -> float:
        """Return the factor of a step of the run."""
        return self._schedule(step - self._first)


def cycle_ends(schedule: Schedule) -> tuple[int, ...]:
    """Return the numbers of steps after which a cycle of a schedule has ended; none of one without cycles."""
    found: tuple[int, ...] = getattr(schedule, "cycle_ends", ())
    return found


class Freezing:
    """Freezes and unfreezes the parameter groups that have a window, `active: [first, end]` in steps.

    A group is trained in the steps s (s steps done before, so 0 is the first) with first <= s < end, and frozen in all
    others. So what is frozen follows from the step alone, and a resumed run needs no state.

    A frozen parameter has `requires_grad=False` and no gradient: the optimizer leaves its weight and state alone, and
    penalties and constraints skip it. A norm with running statistics (BatchNorm) runs in evaluation mode while all its
    parameters are frozen: it normalizes with these statistics and does not update them. Keras does the same for
    `trainable=False`, fastai in its callback BnFreeze. A BatchNorm without parameters belongs to no group and is never
    frozen, unless `followed` says whose parameters it follows: it is then frozen while all of these are.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        changed: Callable[[], object] = lambda: None,
        followed: Mapping[nn.Module, Sequence[nn.Parameter]] | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._changed = changed  # called when another set of parameters is frozen than before
        self._frozen: list[bool] = []
        windowed = {p for group in optimizer.param_groups if "active" in group for p in group["params"]}
        norms = [m for m in model.modules() if has_running_statistics(m)]
        # With the flag that each has while it is trained, and the parameters that say whether it is
        deciding = {m: list(m.parameters(recurse=False)) for m in norms} | {**(followed or {})}
        self._norms = [(m, m.training, params) for m, params in deciding.items() if windowed & set(params)]

    def apply(self, step: int) -> None:
        """Freeze and unfreeze what changes at this step; `step` is the number of steps done before."""
        groups = [group for group in self._optimizer.param_groups if "active" in group]
        frozen = [not group["active"][0] <= step < group["active"][1] for group in groups]
        if frozen == self._frozen:
            return
        self._frozen = frozen
        for group, still in zip(groups, frozen, strict=True):
            for parameter in group["params"]:
                parameter.requires_grad_(not still)
                parameter.grad = None
        for norm, training, parameters in self._norms:
            norm.training = training and any(p.requires_grad for p in parameters)
        self._changed()


class NeverFrozen:
    """Freezes nothing: no parameter group has a window."""

    def apply(self, step: int) -> None:
        """Do nothing."""


def freezing(
    model: nn.Module,
    optimizer: Optimizer,
    changed: Callable[[], object],
    followed: Mapping[nn.Module, Sequence[nn.Parameter]] | None = None,
) -> Freezing | NeverFrozen:
    """Return what freezes the groups of an optimizer that have a window."""
    windows = any("active" in group for group in optimizer.param_groups)
    return Freezing(model, optimizer, changed, followed) if windows else NeverFrozen()


def rate_tags(groups: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the tags of the learning rates to log, with the number of a parameter group that has it.

    `train/lr` is the rate of the first group. Where rates or windows differ, each group also has
    `train/lr/<label>`; groups that share a label and a rate share the tag.
    """
    tags = {"train/lr": 0}
    rates = [(group.get("initial_lr", group["lr"]), group.get("active")) for group in groups]
    if all(rate == rates[0] for rate in rates):
        return tags
    for number, group in enumerate(groups):
        word = str(group.get("label") or group.get("name") or f"group {number + 1}")
        tag = f"train/lr/{re.sub('[^A-Za-z0-9._-]+', '_', word)}"
        if rates[tags.get(tag, number)] != rates[number]:
            tag = f"{tag}_{number + 1}"
        tags.setdefault(tag, number)
    return tags
