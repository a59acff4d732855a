"""The healthy nets of the bank: their overrides, their learning rate and weight decay, which the faults change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Net:
    """A net with its optimizer.

    Attributes:
        rate: The learning rate of a healthy run.
        decay: Its weight decay.
        words: The overrides that make it.
        frozen: A layer that the fault `frozen` freezes.
        tiny: The overrides that make it far too small.
    """

    rate: float
    decay: float
    words: tuple[str, ...]
    frozen: str
    tiny: tuple[str, ...]

    @property
    def optimizer(self) -> str:
        """The name of the optimizer."""
        return next(word.removeprefix("optim=") for word in self.words if word.startswith("optim="))


_NO_NORM = "norm=none"
_TINY_CNN = ("model.channels=[1,1]", "model.hidden=[2]")
NETS: Mapping[str, Net] = {
    "mlp": Net(0.05, 5e-4, ("model=mlp", "optim=momentum"), "fc2", ("model.hidden=[2,2]",)),
    "cnn": Net(0.05, 5e-4, ("model=cnn", "optim=momentum"), "fc1", _TINY_CNN),
    "mlp_adamw": Net(
        0.003, 1e-2, ("model=mlp", "model.hidden=[96,96,96]", "optim=adamw"), "fc2", ("model.hidden=[2,2,2]",)
    ),
    "cnn_wide": Net(0.03, 5e-4, ("model=cnn", "model.channels=[12,24,48]", "optim=nesterov"), "fc1", _TINY_CNN),
    "resnet": Net(0.1, 5e-4, ("model=resnet", "model.width=8", "optim=momentum"), "stage2", ("model.width=1",)),
    # Held out in the second bank
    "vit": Net(
        0.006,
        1e-2,
        ("model=vit", "model.dim=32", "model.depth=2", "norm=layer", "activation=gelu", "optim=adamw"),
        "block2",
        ("model.dim=2", "model.depth=1", "model.heads=1"),
    ),
    "plain": Net(0.02, 5e-4, ("model=cnn", "model.channels=[12,12,24]", _NO_NORM, "optim=momentum"), "fc1", _TINY_CNN),
    "pre_act": Net(
        0.2, 5e-4, ("model=resnet", "model.width=6", "model.order=pre", "optim=nesterov"), "stage2", ("model.width=1",)
    ),
    "group_cnn": Net(
        0.05,
        5e-4,
        ("model=cnn", "model.channels=[16,16]", "model.kernel=5", "norm=group", "optim=momentum"),
        "fc1",
        (*_TINY_CNN, "norm.groups=1"),
    ),
    "mlp_tanh": Net(
        0.009,
        1e-2,
        ("model=mlp", "model.hidden=[64,64,64]", "activation=tanh", "init=xavier", _NO_NORM, "optim=adamw"),
        "fc2",
        ("model.hidden=[2,2,2]",),
    ),
    "mlp_deep": Net(
        0.1,
        5e-4,
        ("model=mlp", "model.hidden=[64,64,64,64,64]", "optim=nesterov"),
        "fc2",
        ("model.hidden=[2,2,2,2,2]",),
    ),
    # Held out in the third bank
    "cnn_elu": Net(
        0.06,
        5e-4,
        ("model=cnn", "model.channels=[8,16]", "activation=elu", _NO_NORM, "optim=nesterov"),
        "fc1",
        _TINY_CNN,
    ),
    "cnn_sgd": Net(0.9, 5e-4, ("model=cnn", "model.channels=[10,20]", "optim=sgd"), "fc1", _TINY_CNN),
    "cnn_leaky": Net(
        0.15,
        5e-4,
        ("model=cnn", "model.channels=[8,8]", "activation=leaky_relu", "init=orthogonal", "optim=momentum"),
        "fc1",
        _TINY_CNN,
    ),
    "mlp_silu": Net(
        0.012,
        2e-2,
        ("model=mlp", "model.hidden=[64,64]", "activation=silu", "norm=layer", "optim=adamw"),
        "fc2",
        ("model.hidden=[2,2]",),
    ),
    "mlp_wide": Net(0.15, 5e-4, ("model=mlp", "model.hidden=[256]", "optim=momentum"), "fc1", ("model.hidden=[2]",)),
    "mlp_cone": Net(
        0.006, 1e-2, ("model=mlp", "model.hidden=[96,48,24]", "optim=adamw"), "fc2", ("model.hidden=[2,2,2]",)
    ),
    # Held out in the fourth bank; their rates are between the best two of the three, which are the larger ones
    "cnn_gelu": Net(
        0.006,
        1e-2,
        ("model=cnn", "model.channels=[12,12]", "activation=gelu", "norm=layer", "optim=adamw"),
        "fc1",
        _TINY_CNN,
    ),
    "cnn_small": Net(0.1, 5e-4, ("model=cnn", "model.channels=[8,16,16]", "optim=momentum"), "fc1", _TINY_CNN),
    "cnn_silu": Net(
        0.1, 5e-4, ("model=cnn", "model.channels=[10,20]", "activation=silu", "optim=nesterov"), "fc1", _TINY_CNN
    ),
    "mlp_nesterov": Net(
        0.1, 5e-4, ("model=mlp", "model.hidden=[128,64]", "optim=nesterov"), "fc2", ("model.hidden=[2,2]",)
    ),
    "mlp_elu": Net(
        0.04,
        5e-4,
        ("model=mlp", "model.hidden=[64,64,32]", "activation=elu", _NO_NORM, "optim=momentum"),
        "fc2",
        ("model.hidden=[2,2,2]",),
    ),
    "mlp_group": Net(
        0.006,
        1e-2,
        ("model=mlp", "model.hidden=[80,80,80]", "norm=group", "optim=adamw"),
        "fc2",
        ("model.hidden=[2,2,2]", "norm.groups=1"),
    ),
}
# What the healthy runs of a data set have besides. The learning rates are the best of three, a factor of three apart,
# by validation accuracy alone in one run with another seed; those of the first five are within that factor of the best
DATA_WORDS: Mapping[str, tuple[str, ...]] = {
    "photos16": ("augment=[crop,hflip]",),
    "photos12": ("augment=[crop,hflip]",),
    "vehicles": ("augment=[crop,hflip]",),
    "photos_test": ("augment=[crop,hflip]",),
}
# Healthy runs are trained in each of these ways in turn: there is more than one healthy config
VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("lr*0.5", "scheduler.warmup=5%"),
    ("data.batch_size=32",),
    ("scheduler=onecycle",),
    ("regularizer=[dropout]", "regularizer.dropout.p=0.1"),
    ("loss.label_smoothing=0.1",),
)
