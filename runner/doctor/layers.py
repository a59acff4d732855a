"""Measurements of the layers of a run: activations and update ratios by layer, in the order of execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runner.doctor.finding import Evidence
from runner.doctor.history import History
from runner.doctor.measures import Values

_ACTIVATIONS, _RATIO = "activations/", "ratio/l2/"
_WHOLE = "_global"
# Optimizers whose decay is decoupled from the gradient; others with momentum add it to the gradient
_DECOUPLED = ("adafactor", "adamw", "lamb", "lion", "muon", "schedulefree")
COUPLED = ("sgd", "momentum", "nesterov")


def layers_of(history: History, key: str) -> dict[str, Values]:
    """Return a statistic of each activation layer, `std`, `dead` or `saturated`, in order of execution.

    Returns:
        By the layer's name the finite values (n,), one for each measurement; layers without any are left out.
    """
    # The order in which tags were logged, since names do not sort like layers
    found = {
        tag.removeprefix(_ACTIVATIONS).removesuffix(f"/{key}"): history.series(tag).finite().values
        for tag in history.curves
        if tag.startswith(_ACTIVATIONS) and tag.endswith(f"/{key}")
    }
    return {name: values for name, values in found.items() if len(values)}


def ratios_of(history: History) -> dict[str, Values]:
    """Return the update ratios of each weight tensor over the measurements, in order of execution."""
    found = {tag.removeprefix(_RATIO): history.series(tag) for tag in history.curves if tag.startswith(_RATIO)}
    return {name: each.values for name, each in found.items() if name != _WHOLE and len(each)}


def activation_gain(history: History) -> float | None:
    """Return the factor per layer by which activations grow at initialization, None for fewer than two layers.

    It is the geometric mean over the layers of the standard deviations at step 1.
    """
    first = np.array([values[0] for values in layers_of(history, "std").values()])
    if len(first) < 2 or not (first > 0).all():
        return None
    return float((first[-1] / first[0]) ** (1 / (len(first) - 1)))


def late(values: Values) -> float:
    """Return the median of the last third of some measurements."""
    return float(np.median(values[-max(1, len(values) // 3) :]))


def decay_per_step(config: Mapping[str, Any]) -> float:
    """Return the share of itself by which weight decay shrinks a weight in a step; 0 where that is not known.

    It is that at the largest learning rate, for optimizers whose decay does not depend on the gradient.
    """
    optim = config["optim"]
    rate, decay = optim.get("lr"), optim.get("weight_decay")
    known = optim["name"] in (*_DECOUPLED, *COUPLED) and isinstance(rate, (int, float))
    if not known or not isinstance(decay, (int, float)) or rate * decay <= 0:
        return 0.0
    slowed = 1 - (optim.get("momentum") or 0.0) if optim["name"] in COUPLED else 1.0
    return float(rate * decay / slowed) if slowed > 0 else 0.0


def measured_at(history: History, tags: tuple[str, ...], **numbers: float) -> Evidence:
    """Return evidence from the measurements of some layers."""
    steps = history.series(tags[0]).steps
    return Evidence(numbers=numbers, steps=(int(steps[0]), int(steps[-1])), tags=tags)
