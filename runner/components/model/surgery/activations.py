"""The activations of another library's model become those of the config."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from runner.components.model.surgery.kinds import ACTIVATION_FUNCTIONS
from runner.components.model.surgery.swap import Changes, alike, beyond, counted, names_of, title
from runner.components.model.surgery.trace import Function, Trace
from runner.engine.contracts import ActivationMaker
from runner.engine.parts import fill


def swap_activations(model: nn.Module, seen: Trace, make: ActivationMaker, what: str) -> Changes:
    """Put an activation of its own at every place where the model has one as a module, and return what changed.

    Sigmoids that gate (squeeze and excitation) stay. Raises ConfigError for activations that are called as functions
    and are not the one asked for, and for one with weights (PReLU) at several places of a module.
    """
    asked = make()
    calls = [f for f in seen.functions if f.name in ACTIVATION_FUNCTIONS and not seen.gates(f)]
    for name, places in Counter(f.name for f in calls if not same(f, asked)).items():
        raise beyond(what, f"calls {name} as a function at {counted(places)}", f"activation= ({title(asked)})")
    changes: Changes = Counter()
    for old, uses in Counter(call.module for call in seen.activations()).items():
        names = names_of(model, old)
        if uses > len(names) and any(True for _ in asked.parameters()):
            raise beyond(
                what, f"has one {title(old)} at {counted(uses)}", f"activation= ({title(asked)}, with weights)"
            )
        if not alike(old, asked):
            changes[f"{title(old)} -> {title(asked)}"] += uses
        elif any(True for _ in old.parameters()):
            continue  # weights of its own, of the kind asked for
        for name in names:
            fill(model, name, make())
    return changes


def same(function: Function, asked: nn.Module) -> bool:
    """Tell whether an activation that was called as a function gives what the one asked for gives."""
    x = torch.linspace(-4, 4, 33)
    return function.name != "prelu" and torch.equal(function.again(x.clone()), asked(x))
