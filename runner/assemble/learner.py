"""The learner: optimizer, schedule, average and patience round a model."""

from __future__ import annotations

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from runner.assemble.config import Config
from runner.engine.learner import Learner, Patience, Pure
from runner.engine.recipe import Recipe
from runner.registry import build
from runner.schema import Settings


def build_learner(
    config: Config,
    settings: Settings,
    recipe: Recipe,
    model: nn.Module,
    preprocess: nn.Module,
    device: torch.device,
) -> Learner:
    """Return all that changes, at step 0."""
    fused = device.type in ("cpu", "cuda", "mps") or None
    optimizer = build("optim", config["optim"], model=model, fused=fused)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    batch = config["data"]["batch_size"] * settings.accumulate
    durations = {"total_steps": recipe.total_steps, "steps_per_epoch": recipe.steps_per_epoch, "batch": batch}
    schedule = build("scheduler", config["scheduler"], **durations)
    return Learner(
        model=model,
        preprocess=preprocess,
        optimizer=optimizer,
        schedule=schedule if hasattr(schedule, "observe") else Pure(schedule),
        scaler=GradScaler(device.type, enabled=settings.precision == "fp16"),
        average=build("average", config["average"], model=model, optimizer=optimizer, **durations),
        patience=Patience(settings.monitor, limit=settings.patience),
    )
