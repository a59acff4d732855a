"""Measurements of the layers of a run: activations and update ratios by layer, in the order of execution."""

from __future__ import annotations

import numpy as np

from runner.doctor.history import History
from runner.doctor.measures import Values

_ACTIVATIONS, _RATIO = "activations/", "ratio/l2/"
_WHOLE = "_global"


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
