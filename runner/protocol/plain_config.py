"""The config of a training without regularization and augmentation, in which a sound model fits what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What the optimizer schedulefree needs, and no regularization
_KEPT_AVERAGES = ("none", "schedulefree")


def plain_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that turn off all that makes fitting the training examples harder.

    Weight decay, dropout, augmentation, mixing, label smoothing, averages of weights, schedules, clipping and
    distillation.
    """
    found: dict[str, Any] = {
        **quiet_overrides(config),
        "augment": [],
        "regularizer": [],
        "probe": [],
        "mix": "none",
        "distillation": "none",
        "resize": "none",
        "update": "plain",
        "scheduler": "constant",
        "optim.weight_decay": 0.0,
        "clip": None,
        "augment_repeats": 1,
    }
    if "label_smoothing" in config["loss"]:
        found["loss.label_smoothing"] = 0.0
    return {key: value for key, value in found.items() if _is_there(config, key)}


def quiet_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of each training of the protocol: no test, no pictures, no trackers, no weights left."""
    average = config["average"]["name"]
    return {
        "predict": "plain",
        "average": average if average in _KEPT_AVERAGES else "none",
        "tracker": [],
        "metric": [],
        "monitor": "val/accuracy",
        "name": None,
        "note": "",
        "test": "never",
        "figures": "never",
        "predictions": "never",
        "keep": "none",
        "patience": None,
    }


def _is_there(config: Mapping[str, Any], key: str) -> bool:
    """Return True if a config has a key; an optimizer of a plugin may lack one."""
    group, _, knob = key.partition(".")
    return not knob or knob in config[group]
