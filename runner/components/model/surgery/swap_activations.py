"""Replace a model's activations by the config's, and the helpers that both swaps share."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from runner.components.model.surgery.module_kinds import ACTIVATION_FUNCTIONS, is_known_norm
from runner.components.model.surgery.trace import Function, Trace
from runner.engine.contracts import ActivationMaker
from runner.engine.parts import fill
from runner.errors import ConfigError

# Description of a change -> number of places
Changes = Counter[str]


def swap_activations(model: nn.Module, seen: Trace, make: ActivationMaker, what: str) -> Changes:
    """Replace every activation module by one of its own, and return what changed.

    Sigmoids that gate (squeeze and excitation) stay.

    Args:
        model: The model, changed in place.
        seen: Trace of one forward pass.
        make: Factory of the requested activation.
        what: Name of the model in messages.

    Raises:
        ConfigError: Another activation is called as a function, or the requested one has weights (PReLU) and a module
            is used more than once.
    """
    asked = make()
    calls = [f for f in seen.functions if f.name in ACTIVATION_FUNCTIONS and not seen.gates(f)]
    for name, places in Counter(f.name for f in calls if not _same_function(f, asked)).items():
        raise unreachable(
            what, f"calls {name} as a function at {count_places(places)}", f"activation= ({class_name(asked)})"
        )
    changes: Changes = Counter()
    for old, uses in Counter(call.module for call in seen.activations()).items():
        names = module_names(model, old)
        if uses > len(names) and any(True for _ in asked.parameters()):
            raise unreachable(
                what,
                f"has one {class_name(old)} at {count_places(uses)}",
                f"activation= ({class_name(asked)}, with weights)",
            )
        if not is_equivalent(old, asked):
            changes[f"{class_name(old)} -> {class_name(asked)}"] += uses
        elif any(True for _ in old.parameters()):
            # Already the requested kind, with weights of its own
            continue
        for name in names:
            fill(model, name, _with_own_output(make()) if old in seen.changed_in_place else make())
    return changes


def _with_own_output(activation: nn.Module) -> nn.Module:
    """Make an activation return a copy, for a model that changes it in place: backward may need the original."""
    activation.register_forward_hook(_copy_output)
    return activation


def _copy_output(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """Return a copy of a module's output."""
    return out.clone()


def _same_function(function: Function, asked: nn.Module) -> bool:
    """Return True if an activation called as a function computes the same as the requested module."""
    x = torch.linspace(-4, 4, 33)
    return function.name != "prelu" and torch.equal(function.again(x.clone()), asked(x))


def is_equivalent(old: nn.Module, new: nn.Module) -> bool:
    """Return True if a module already is of the requested kind with the same hyperparameters (in place or not)."""
    if type(new) not in type(old).__mro__ or (is_known_norm(old) and list(old.state_dict()) != list(new.state_dict())):
        return False
    return _hyperparameters(old) == _hyperparameters(new)


def _hyperparameters(part: nn.Module) -> str:
    """Return a module's hyperparameters as text, without the word inplace."""
    words = [word for word in part.extra_repr().split(", ") if word not in ("", "inplace", "inplace=True")]
    return ", ".join(words)


def module_names(model: nn.Module, part: nn.Module) -> list[str]:
    """Return every name of a module in a model."""
    return [name for name, module in model.named_modules(remove_duplicate=False) if module is part]


def class_name(part: nn.Module) -> str:
    """Return the class name of a module, that of the norm inside if it is wrapped."""
    return type(getattr(part, "norm", part)).__name__


def count_places(places: int) -> str:
    """Return a count in words: `1 place`, `2 places`."""
    return f"{places} place{'s' if places != 1 else ''}"


def unreachable(what: str, finding: str, wanted: str) -> ConfigError:
    """Return the error for a part that cannot be replaced."""
    other = "norm" if wanted.startswith("activation") else "activation"
    return ConfigError(f"model.arch: {what} {finding}, which {wanted} cannot replace; model.swap=[{other}] keeps it")


def describe_changes(changes: Changes) -> str:
    """Return the changes in words: `20 BatchNorm2d -> GroupNorm, 17 ReLU -> GELU`."""
    return ", ".join(f"{places} {what}" for what, places in changes.items())
