"""The faults of the bank: what is done to a healthy run, and the symptoms that name the cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Alteration(StrEnum):
    """A change of the data."""

    WHOLE = "whole"
    FEW = "few"  # 1 % of the training examples
    PERMUTED = "permuted"  # training labels in another order
    LEAK = "leak"  # the validation split is a part of the training split


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        causes: The symptoms whose finding names the cause; a symptom that only shows the damage is not among them.
        overrides: The overrides that make it, by the healthy run's config.
        data: What is done to the data.
        nets: The nets that can have it; empty: all.
    """

    causes: frozenset[str]
    overrides: tuple[str, ...] = ()
    data: Alteration = Alteration.WHOLE
    nets: tuple[str, ...] = ()


HEALTHY = "healthy"
_NO_NORM = "norm=none"


def _fault(causes: str, *overrides: str, data: Alteration = Alteration.WHOLE, nets: str = "") -> Fault:
    return Fault(frozenset(causes.split()), overrides, data, tuple(nets.split()))


_LARGE_RATE = "lr_very_high lr_high nonfinite ratio_high unstable_early"
_SMALL_RATE = "lr_low ratio_low"
_BAD_INIT = "bad_init_plateau vanishing collapsed initial_loss exploding saturated"
_FEW_EXAMPLES = "few_examples overfit_gap overfit_rising overconfident"

# The causes were written down before a rule was tuned. "lr * 100" is resolved by `overrides_of`
FAULTS: Mapping[str, Fault] = {
    HEALTHY: Fault(frozenset()),
    "lr_x100": _fault(_LARGE_RATE, "lr*100"),
    "lr_div1000": _fault(_SMALL_RATE, "lr*0.001"),
    "tiny_init": _fault(_BAD_INIT, "init=normal", "init.std=0.001", "init.head=null", _NO_NORM, "lr*0.3"),
    "large_init": _fault(_BAD_INIT, "init=normal", "init.std=0.5", "init.head=null", _NO_NORM, "lr*0.1"),
    "decay_x1000": _fault("decay_too_strong", "wd*1000"),
    "one_percent": _fault(_FEW_EXAMPLES, data=Alteration.FEW),
    "permuted": _fault("val_at_chance", data=Alteration.PERMUTED),
    "leak": _fault("val_leak val_better", data=Alteration.LEAK),
    "dead_relu": _fault("dead_relu " + _LARGE_RATE, _NO_NORM, "lr*30", "clip=1.0"),
    "early_decay": _fault("decay_too_early", "scheduler=multistep", "scheduler.milestones=[10%]", "lr*0.3"),
    "batch2": _fault("bn_small_batch", "data.batch_size=2", "norm=batch", "lr*0.1"),
    "frozen": _fault("layer_frozen", "frozen"),
    "dropout": _fault("regularized_too_much underfit", "regularizer=[dropout]", "regularizer.dropout.p=0.95"),
    "smoothing": _fault("regularized_too_much", "loss.label_smoothing=0.95"),
    "clip": _fault("clip_too_much", "clip=0.001"),
    "too_short": _fault("train_longer lr_low", "scheduler=constant", "lr*0.01"),
    "saturated": _fault(_BAD_INIT, "activation=sigmoid", _NO_NORM, "init=normal", "init.std=1.0"),
    "no_decay": _fault("plateau_decay lr_high noisy_late", "scheduler=constant", "lr*10"),
}

# The healthy nets, with the learning rate and the weight decay that the faults change
NETS: Mapping[str, tuple[float, float, tuple[str, ...]]] = {
    "mlp": (0.05, 5e-4, ("model=mlp", "optim=momentum")),
    "cnn": (0.05, 5e-4, ("model=cnn", "optim=momentum")),
    "mlp_adamw": (0.003, 1e-2, ("model=mlp", "model.hidden=[96,96,96]", "optim=adamw")),
    "cnn_wide": (0.03, 5e-4, ("model=cnn", "model.channels=[12,24,48]", "optim=nesterov")),
    "resnet": (0.1, 5e-4, ("model=resnet", "model.width=8", "optim=momentum")),
}
# A layer of each net that a fault freezes
_FROZEN = {"mlp": "fc2", "cnn": "fc1", "mlp_adamw": "fc2", "cnn_wide": "fc1", "resnet": "stage2"}


def overrides_of(net: str, fault: str) -> list[str]:
    """Return the overrides of a run: those of the net, then those of the fault."""
    rate, decay, words = NETS[net]
    found = [*words, f"optim.lr={rate}", f"optim.weight_decay={decay}"]
    for word in FAULTS[fault].overrides:
        if word.startswith("lr*"):
            word = f"optim.lr={rate * float(word[3:]):.3g}"
        elif word.startswith("wd*"):
            word = f"optim.weight_decay={decay * float(word[3:]):.3g}"
        elif word == "frozen":
            # As a layer that the optimizer forgot
            word = f"optim.rules=[{{match: {_FROZEN[net]}, lr: 0, weight_decay: 0}}]"
        found.append(word)
    # Of a key that net and fault set, the fault's value
    return list({word.partition("=")[0]: word for word in found}.values())


def names_cause(fault: str, finding: str) -> bool:
    """True if a finding names the cause of a fault."""
    return finding in FAULTS[fault].causes


def config_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that a rule may read, without paths and names."""
    left_out = {"outputs", "name", "hydra", "note", "plugins", "tracker", "sweep"}
    return {key: value for key, value in config.items() if key not in left_out}
