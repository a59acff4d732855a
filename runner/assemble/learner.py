"""The learner: optimizer, schedule, average and patience around a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from runner.assemble.execution import check_bf16_state
from runner.assemble.transfer import StagePlans
from runner.directions import monitor_in
from runner.engine.batches import TrainBatches
from runner.engine.clock import Clock
from runner.engine.contracts import Average
from runner.engine.fast_step import avoid_dynamo, fast_stepper
from runner.engine.finite import Gate
from runner.engine.forward import FastForward
from runner.engine.joint_statistics import batch_norms
from runner.engine.learner import Learner, Recalibrate, is_dense, no_recalibration
from runner.engine.loss_scaler import LossScaler
from runner.engine.patience import Patience, never_prune
from runner.engine.recalibration import Recalibration
from runner.engine.recipe import Recipe
from runner.engine.schedules import (
    FixedMomentum,
    Freezing,
    MomentumCycle,
    NeverFrozen,
    Observing,
    Pure,
    Shifted,
    cycle_ends,
    freezing,
)
from runner.errors import ConfigError, shown
from runner.printing import counted
from runner.registry import Config, build
from runner.search import pruning
from runner.settings import Settings, extended_step

# Dates of snapshots that the summary names
_MOST_DATES = 10


def build_learner(
    config: Config,
    settings: Settings,
    recipe: Recipe,
    model: nn.Module,
    preprocess: nn.Module,
    batches: TrainBatches,
    plans: StagePlans,
    search: Mapping[str, Any] | None = None,
) -> Learner:
    """Return everything that changes, at step 0; `search` is where a trial of a search reports its scores."""
    optimizer = _build_optimizer(config, model, batches.device, plans)
    clock = Clock(recipe.total_steps, recipe.steps_per_epoch, batches.batch)
    # Users' components may ask for each number by its name.
    _set_windows(optimizer, clock)
    schedule = _schedule(config, optimizer, clock)
    cycle = _momentum_cycle(config, optimizer, schedule)
    cycle.apply(0)
    if settings.precision == "pure_bf16":
        check_bf16_state(optimizer)
    context = {"clock": clock, **vars(clock), "cycle_ends": cycle_ends(schedule)}
    every, total = recipe.validate_every, recipe.total_steps
    should_prune = pruning.make_should_prune(search, every=every, total=total) if search else never_prune
    average = build("average", config["average"], model=model, optimizer=optimizer, **context)
    return Learner(
        model=model,
        preprocess=preprocess,
        optimizer=optimizer,
        schedule=schedule,
        momentum=cycle,
        scaler=LossScaler(batches.device.type, enabled=settings.precision == "fp16"),
        average=average,
        patience=Patience(monitor_in(config), limit=settings.patience, should_prune=should_prune),
        stepper=fast_stepper(optimizer),
        gate=Gate(optimizer),
        freezing=_freezing(model, optimizer, recipe, plans),
        at_step=recipe.at_step,
        recalibrate=_recalibration(recipe, average, batches),
    )


def _build_optimizer(config: Config, model: nn.Module, device: torch.device, plans: StagePlans) -> Optimizer:
    """Return the optimizer, with torch's fused step where it is right."""
    avoid_dynamo()
    # Torch's fused steps loop over memory, whatever the strides
    fused = (device.type in ("cpu", "cuda", "mps") and all(map(is_dense, model.parameters()))) or None
    context: dict[str, Any] = {"fused": fused, "stage_rules": plans.rules, "width_factors": plans.width_factors}
    optimizer: Optimizer = build("optim", config["optim"], model=model, **context)
    return optimizer


def _freezing(model: nn.Module, optimizer: Optimizer, recipe: Recipe, plans: StagePlans) -> Freezing | NeverFrozen:
    """Return what freezes parameter groups; a compiled forward pass is compiled again for what is trained then."""
    changed = recipe.forward.reset if isinstance(recipe.forward, FastForward) else lambda: None
    return freezing(model, optimizer, changed, plans.norms_without_parameters(model))


def _schedule(config: Config, optimizer: Optimizer, clock: Clock) -> Observing:
    """Return the learning-rate schedule; with `extend_restart` one of the steps after the extended run's last."""
    first = (extended_step(config) or 0) if config["extend_restart"] else 0
    if first and any("active" in group for group in optimizer.param_groups):
        raise ConfigError("extend_restart: got true, must be false with windows in optim.rules (until, active)")
    if first >= clock.total_steps:
        # The run has no step left, which its task says
        first = 0
    own = replace(clock, total_steps=clock.total_steps - first)
    schedule = build("scheduler", config["scheduler"], clock=own, **vars(own))
    observing = schedule if hasattr(schedule, "observe") else Pure(schedule)
    return Shifted(observing, first) if first else observing


def _momentum_cycle(config: Config, optimizer: Optimizer, schedule: Observing) -> MomentumCycle | FixedMomentum:
    """Return what cycles the momentum, if the schedule does; raise ConfigError if the optimizer has none."""
    momentum = getattr(schedule, "momentum", None)
    if momentum is None:
        return FixedMomentum()
    name, given = config["optim"]["name"], shown(config["scheduler"].get("momentum"))
    if hasattr(optimizer, "averaged"):
        raise ConfigError(
            f"scheduler.momentum: got {given}, must be null with optim={name}: its average needs one value"
        )
    if not all("betas" in group or group.get("momentum") for group in optimizer.param_groups):
        raise ConfigError(f"scheduler.momentum: got {given}, but optim={name} has no momentum; choose optim=momentum")
    return MomentumCycle(optimizer, momentum)


def _recalibration(recipe: Recipe, average: Average, batches: TrainBatches) -> Recalibrate:
    """Return what prepares the averaged model for validations; an average of a plugin may leave it out."""
    is_needed = getattr(average, "needs_statistics", None)
    if is_needed is None or not is_needed(recipe.total_steps) or not batch_norms(average.module):
        return no_recalibration
    return Recalibration(recipe, batches, is_needed)


def describe_recalibration(learner: Learner) -> list[str]:
    """Return a summary line if averaged weights get statistics of their own, which takes time."""
    if not isinstance(learner.recalibrate, Recalibration):
        return []
    norms, steps = len(batch_norms(learner.model)), learner.recalibrate.batches.steps_per_epoch
    return [
        f"recomputes the statistics of {norms} BatchNorms from {steps} batches before it validates averaged weights"
    ]


def describe_snapshots(learner: Learner) -> list[str]:
    """Return a summary line about the dates of the snapshots, if there are any."""
    dates = learner.snapshots.dates
    shown = [*map(str, dates[:_MOST_DATES]), *(["..."] if len(dates) > _MOST_DATES else [])]
    return [f"keeps {counted(len(dates), 'snapshot')}, after step {', '.join(shown)}"] if dates else []


def describe_host_syncs(learner: Learner, device: torch.device) -> list[str]:
    """Return a summary line if the optimizer makes the host wait for the device in each step."""
    if device.type == "cpu" or not learner.gate.needs_host_sync:
        return []
    kind = type(learner.optimizer).__name__
    return [f"{kind} has no fused step: the host waits for {device.type} in each step, to check that all is finite"]


def _set_windows(optimizer: Optimizer, clock: Clock) -> None:
    """Give each group its first rate, `initial_lr`, and its `active` window in steps, [first, end].

    Raises ConfigError for a window that ends before it begins, and if all groups are frozen in a step.
    """
    total = clock.total_steps
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        if "active" in group:
            first, end = _window(group.pop("active"), clock)
            if (first, end) != (0, total):
                group.update(active=[first, end], pace=total / max(1, end - first))
        if "then" in group:
            switch, factor = group.pop("then")
            phases = [[0, switch, total / switch, 1.0], [switch, total, total / (total - switch), factor]]
            group.update(active=[0, total], pace=1.0, phases=phases)
    windows = [group.get("active", [0, total]) for group in optimizer.param_groups]
    # A gap can begin at the start of the run and where a window ends.
    for step in sorted({0, *(end for _, end in windows)}):
        if step < total and not any(first <= step < end for first, end in windows):
            later = min((first for first, end in windows if step < first < end), default=None)
            until = "on" if later is None else f"to step {later}"
            raise ConfigError(
                f"optim.rules: all parameters would be frozen from step {step} {until}, and the run has {total}"
            )


def _window(active: list[str | None], clock: Clock) -> tuple[int, int]:
    """Return a window of durations in steps, cut to the run; an end is at step 1 or later."""
    first = 0 if active[0] is None else clock.steps(active[0])
    end = clock.total_steps if active[1] is None else max(1, clock.steps(active[1]))
    if active[1] is not None and first >= end:
        raise ConfigError(f"optim.rules: got active=[{active[0]},{active[1]}], must begin before it ends")
    return min(clock.total_steps, first), min(clock.total_steps, end)
