"""The faults of the bank: what is done to a healthy run, and the symptoms that name the cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.doctor.mutants import Mutant
from benchmarks.doctor.nets import DATA_WORDS, NETS, Net


class Alteration(StrEnum):
    """A change of the data."""

    WHOLE = "whole"
    FEW = "few"  # 1 % of the training examples
    PART = "part"  # 5 % of the training examples
    PERMUTED = "permuted"  # training labels in another order
    NOISY = "noisy"  # 40 % of the training labels are drawn at random
    SHIFTED = "shifted"  # validation labels are one class further
    LEAK = "leak"  # the validation split is a part of the training split
    SORTED = "sorted"  # training examples in the order of their classes
    LARGE = "large"  # features times 255, as unscaled ones; images have 0 to 255 already
    RARE = "rare"  # in both splits 1 of 50 examples of each class but the first
    INVERTED = "inverted"  # a tenth of the training examples, light for dark: another domain


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        causes: The symptoms whose finding names the cause; a symptom that only shows the damage is not among them.
        overrides: The overrides that make it, by the healthy run's config.
        data: What is done to the data.
        mutant: What is done to the code.
        images: True if only images can have it.
        optimizers: The optimizers that can have it; empty: all.
        pretrained: True if the run starts from the weights of a healthy run.
    """

    causes: frozenset[str]
    overrides: tuple[str, ...] = ()
    data: Alteration = Alteration.WHOLE
    mutant: Mutant = Mutant.NONE
    images: bool = False
    optimizers: tuple[str, ...] = ()
    pretrained: bool = False


HEALTHY = "healthy"
_NO_NORM = "norm=none"


def _fault(causes: str, *overrides: str, data: Alteration = Alteration.WHOLE, mutant: Mutant = Mutant.NONE) -> Fault:
    return Fault(frozenset(causes.split()), overrides, data, mutant)


_LARGE_RATE = "lr_very_high lr_high nonfinite ratio_high unstable_early"
_SMALL_RATE = "lr_low ratio_low"
_BAD_INIT = "bad_init_plateau vanishing collapsed initial_loss exploding saturated activations_grow_or_shrink"
_FEW_EXAMPLES = "few_examples overfit_gap overfit_rising overconfident"
_STRONG = "regularized_too_much underfit"

# The causes were written down before a rule was tuned: those up to `no_decay` before the first rule (but for
# `activations_grow_or_shrink`, which then had no name), all before the rules of the second bank.
# "lr*100" is resolved by `overrides_of`
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
    "dead_relu": _fault("dead_relu " + _LARGE_RATE, _NO_NORM, "activation=relu", "lr*30", "clip=1.0"),
    "early_decay": _fault("decay_too_early", "scheduler=multistep", "scheduler.milestones=[10%]", "lr*0.3"),
    "batch2": _fault("bn_small_batch", "data.batch_size=2", "norm=batch", "lr*0.1"),
    "frozen": _fault("layer_frozen", "frozen"),
    "dropout": _fault(_STRONG, "regularizer=[dropout]", "regularizer.dropout.p=0.95"),
    "smoothing": _fault("regularized_too_much", "loss.label_smoothing=0.95"),
    "clip": _fault("clip_too_much", "clip=0.001"),
    "too_short": _fault("train_longer lr_low", "scheduler=constant", "lr*0.01"),
    "saturated": _fault(_BAD_INIT, "activation=sigmoid", _NO_NORM, "init=normal", "init.std=1.0"),
    "no_decay": _fault("plateau_decay lr_high noisy_late", "scheduler=constant", "lr*10"),
    # Of the second bank only
    "lr_x10": _fault(_LARGE_RATE, "lr*10"),
    "lr_div30": _fault(_SMALL_RATE, "lr*0.033"),
    "sigmoid_deep": _fault(_BAD_INIT, "activation=sigmoid", _NO_NORM, "init=normal", "init.std=0.05", "init.head=null"),
    "zero_init": _fault("layer_frozen " + _BAD_INIT, "init=zeros", _NO_NORM),
    "five_percent": _fault(_FEW_EXAMPLES, data=Alteration.PART),
    "label_noise": _fault("val_better", data=Alteration.NOISY),
    "val_shifted": _fault("val_at_chance", data=Alteration.SHIFTED),
    "unshuffled": _fault("periodic", data=Alteration.SORTED, mutant=Mutant.ORDERED),
    "summed_loss": _fault("initial_loss", mutant=Mutant.SUMMED),
    "momentum": Fault(
        frozenset(f"momentum_too_high {_LARGE_RATE}".split()),
        ("optim.momentum=0.999",),
        optimizers=("momentum", "nesterov"),
    ),
    "adam_eps": Fault(frozenset(_SMALL_RATE.split()), ("optim.eps=1.0",), optimizers=("adamw",)),
    "unscaled": _fault(_LARGE_RATE + " initial_loss", "preprocess=none", _NO_NORM, data=Alteration.LARGE),
    "long_warm_up": _fault("warm_up_too_long", "scheduler.warmup=60%"),
    "imbalanced": _fault("imbalanced", data=Alteration.RARE),
    "tiny_width": _fault("underfit", "tiny"),
    "strong_augment": Fault(
        frozenset(_STRONG.split()),
        (
            "augment=[crop,randaugment,random_erasing]",
            "augment.randaugment.ops=4",
            "augment.randaugment.magnitude=30",
            "augment.random_erasing.p=1",
            "augment.random_erasing.scale=[0.5,0.9]",
        ),
        images=True,
    ),
    "slow_average": _fault("average_too_long", "average.decay=0.9999", "average.warmup=false"),
    "slow_statistics": _fault("bn_stats_mismatch", "norm=batch", "norm.momentum=0.0001"),
    "fine_tuned": Fault(
        frozenset(f"fine_tuned_too_fast {_LARGE_RATE}".split()), ("lr*3",), Alteration.INVERTED, pretrained=True
    ),
    "rising_rate": _fault("loss_rising " + _LARGE_RATE, "scheduler=triangular", "scheduler.peak=100%", "lr*30"),
}


def overrides_of(net: str, fault: Fault, variant: Sequence[str] = (), data: str = "") -> list[str]:
    """Return the overrides of a run: those of data and net, then those of the fault or of a variant of healthy runs."""
    made = NETS[net]
    found = [*DATA_WORDS.get(data, ()), *made.words, f"optim.lr={made.rate}", f"optim.weight_decay={made.decay}"]
    for word in (*fault.overrides, *variant):
        found += _resolved(made, word)
    # Of a key that net and fault set, the fault's value
    return list({word.partition("=")[0]: word for word in found}.values())


def _resolved(net: Net, word: str) -> list[str]:
    """Return the overrides of a word, which may depend on the net."""
    if word.startswith("lr*"):
        return [f"optim.lr={net.rate * float(word[3:]):.3g}"]
    if word.startswith("wd*"):
        return [f"optim.weight_decay={net.decay * float(word[3:]):.3g}"]
    if word == "frozen":
        # As a layer that the optimizer forgot
        return [f"optim.rules=[{{match: {net.frozen}, lr: 0, weight_decay: 0}}]"]
    return list(net.tiny) if word == "tiny" else [word]


def can_have(fault: str, net: str, is_images: bool) -> bool:
    """True if a net on images, or on features, can have a fault."""
    made = FAULTS[fault]
    return (is_images or not made.images) and (not made.optimizers or NETS[net].optimizer in made.optimizers)


def names_cause(fault: str, finding: str) -> bool:
    """True if a finding names the cause of a fault."""
    return finding in FAULTS[fault].causes
