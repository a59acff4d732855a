"""Changes of a config that several symptoms advise, as lists of overrides; what the run already has is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.doctor.advice import divided_lr, rounded

Advice = list[tuple[str, ...]]
# Schedules whose learning rate does not fall
_CONSTANT = "constant"
_EXTRA_DECAY = 3


def more_lr(config: Mapping[str, Any], factor: float) -> Advice:
    """Return the advice to train with the learning rate times a factor."""
    return divided_lr(config, 1 / factor)


def decayed(config: Mapping[str, Any]) -> Advice:
    """Return the advice to let the learning rate fall to 0."""
    return [("scheduler=cosine",)] if config["scheduler"]["name"] == _CONSTANT else []


def warmed_up(config: Mapping[str, Any]) -> Advice:
    """Return the advice to warm up for 5 % of the steps, where the schedule has a warm-up and the run had none."""
    return [("scheduler.warmup=5%",)] if str(config["scheduler"].get("warmup")).startswith("0") else []


def clipped(config: Mapping[str, Any], limit: float | None) -> Advice:
    """Return the advice to clip gradients at a limit, where the run did not."""
    return [(f"clip={rounded(limit)}",)] if config["clip"] is None and limit and limit > 0 else []


def better_start(config: Mapping[str, Any]) -> Advice:
    """Return the advice for weights of the wrong scale: Kaiming's, a small head, then batch normalization."""
    init, found = config["init"], Advice()
    if init["name"] not in ("kaiming", "xavier", "orthogonal", "lsuv"):
        found.append(("init=kaiming",))
    elif "head" in init and init["head"] not in ("small", "zeros"):
        found.append(("init.head=small",))
    if config["norm"]["name"] == "none":
        found.append(("norm=batch",))
    return found


def regularized(config: Mapping[str, Any]) -> Advice:
    """Return the ladder against overfitting: more weight decay, augmentation, dropout."""
    found, decay = Advice(), config["optim"].get("weight_decay")
    if isinstance(decay, (int, float)):
        found.append((f"optim.weight_decay={rounded(_EXTRA_DECAY * decay or 1e-4)}",))
    if not config["augment"]:
        found.append(("augment=[crop]",))
    if not config["regularizer"]:
        found.append(("regularizer=[dropout]",))
    return found


def longer(config: Mapping[str, Any], factor: float) -> Advice:
    """Return the advice to train for more steps or epochs, in the unit of the run."""
    key = "steps" if config["steps"] is not None else "epochs"
    value = config[key]
    return [(f"{key}={round(value * factor) if key == 'steps' else f'{value * factor:g}'}",)] if value else []
