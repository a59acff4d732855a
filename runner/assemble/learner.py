"""The learner: optimizer, schedule, average and patience around a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from runner.assemble.config import Config
from runner.assemble.execution import check_bf16_state
from runner.engine.fast_step import avoid_dynamo, fast_stepper
from runner.engine.finite import Gate
from runner.engine.learner import Learner
from runner.engine.patience import Patience, let_run
from runner.engine.recipe import Recipe
from runner.engine.schedules import Pure
from runner.engine.world import ALONE, World
from runner.errors import ConfigError
from runner.registry import build
from runner.schema import steps_of
from runner.search import pruning
from runner.settings import Settings


def build_learner(
    config: Config,
    settings: Settings,
    recipe: Recipe,
    model: nn.Module,
    preprocess: nn.Module,
    device: torch.device,
    search: Mapping[str, Any] | None = None,
    world: World = ALONE,
) -> Learner:
    """Return everything that changes, at step 0; `search` is where a trial of a search reports its scores."""
    avoid_dynamo()
    fused = device.type in ("cpu", "cuda", "mps") or None
    optimizer = build("optim", config["optim"], model=model, fused=fused)
    if settings.precision == "pure_bf16":
        check_bf16_state(optimizer)
    batch = config["data"]["batch_size"] * settings.accumulate
    durations = {"total_steps": recipe.total_steps, "steps_per_epoch": recipe.steps_per_epoch, "batch": batch}
    date(optimizer, durations)
    schedule = build("scheduler", config["scheduler"], **durations)
    judge = pruning.judge(search, every=recipe.validate_every, total=recipe.total_steps) if search else let_run
    return Learner(
        model=model,
        preprocess=preprocess,
        optimizer=optimizer,
        schedule=schedule if hasattr(schedule, "observe") else Pure(schedule),
        scaler=GradScaler(device.type, enabled=settings.precision == "fp16"),
        average=build("average", config["average"], model=model, optimizer=optimizer, **durations),
        patience=Patience(settings.monitor, limit=settings.patience, judge=judge),
        stepper=fast_stepper(optimizer),
        gate=Gate(optimizer, world),
    )


def describe_host_syncs(learner: Learner, device: torch.device) -> list[str]:
    """Return a summary line if the optimizer makes the host wait for the device in each step."""
    if device.type == "cpu" or not learner.gate.needs_host_sync:
        return []
    kind = type(learner.optimizer).__name__
    return [f"{kind} has no fused step: the host waits for {device.type} in each, to know that all is finite"]


def date(optimizer: Optimizer, durations: Mapping[str, int]) -> None:
    """Give each group its first learning rate and, where a rule says `until`, the step from which it rests.

    Raises ConfigError if all would rest before the run ends.
    """
    total = durations["total_steps"]
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        if "until" in group:
            group["until"] = min(total, max(1, steps_of(group["until"], **durations)))
            group["pace"] = total / group["until"]
    last = max(group.get("until", total) for group in optimizer.param_groups)
    if last < total:
        raise ConfigError(f"optim.rules: every tensor would rest from step {last} on, and the run has {total}")
