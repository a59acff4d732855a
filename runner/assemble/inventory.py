"""What a model is made of, in one line, whoever made it."""

from __future__ import annotations

from collections import Counter

from torch import nn

KINDS = ("modules.batchnorm", "modules.instancenorm", "modules.normalization", "modules.activation")
DROPS = ("Drop", "StochasticDepth")  # in the names of what drops at random


def inventory(model: nn.Module) -> str:
    """Return the norms and activations of a model by kind, and its dropout with rates: `20 BatchNorm2d, 17 ReLU`."""
    counts = Counter(type(m).__name__ for m in model.modules() if type(m).__module__.endswith(KINDS))
    parts = [f"{count} {kind}" for kind, count in counts.items()]
    return ", ".join([*parts, *drops(model)]) or "no norm, no activation"


def drops(model: nn.Module) -> list[str]:
    """Return what drops at random, by kind: the places and the lowest and highest rate, where one is above 0."""
    rates: dict[str, list[float]] = {}
    for module in model.modules():
        rate = getattr(module, "p", getattr(module, "drop_prob", None))
        if isinstance(rate, float) and any(word in type(module).__name__ for word in DROPS):
            rates.setdefault(type(module).__name__, []).append(rate)
    return [f"{len(found)} {kind} of {span(found)}" for kind, found in rates.items() if max(found) > 0]


def span(rates: list[float]) -> str:
    """Return the rates as one number or from lowest to highest."""
    low, high = min(rates), max(rates)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
