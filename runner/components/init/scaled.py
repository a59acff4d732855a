"""Initializations of constants or independent normal numbers: what differs is their standard deviation."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Literal

from torch import nn

from runner.components.init.layers import Head, Layer, initialization, set_head
from runner.engine.contracts import Init
from runner.registry import register
from runner.schema import NonNegative


@register("init")
def torch_default(*, head: Head) -> Init:
    """Leave every layer as its module drew it when the model was built: variance 1 / (3 fan_in) in torch's own."""
    return lambda model: set_head(model, head)


@register("init")
def constant(*, value: float, bias: float, head: Head) -> Init:
    """Set all weights to one value: the units of a layer stay copies of each other (the symmetry never breaks)."""
    return initialization(lambda layer: nn.init.constant_(layer.weight, value), bias=bias, head=head)


@register("init")
def zeros(*, bias: float, head: Head) -> Init:
    """Set all weights to zero: behind ReLU or tanh every gradient but that of the last bias is exactly zero."""
    return constant(value=0.0, bias=bias, head=head)


@register("init")
def normal(*, std: NonNegative, bias: float, head: Head) -> Init:
    """Draw weights from N(0, std^2), whatever the layer's size."""
    return gaussian(lambda layer: std, bias=bias, head=head)


register("init", "small_normal")(normal)
register("init", "large_normal")(normal)


@register("init")
def xavier(*, mode: Literal["fan_in", "fan_avg"], bias: float, head: Head) -> Init:
    """Draw weights of variance 1 / fan, which keeps the scale of signals through linear or tanh layers.

    `fan_avg` is Glorot and Bengio's (2010), 2 / (fan_in + fan_out); `fan_in` is the short form found in lecture notes.
    """
    return gaussian(lambda layer: sqrt(1 / fan(layer, mode)), bias=bias, head=head)


@register("init")
def xavier_relu(*, mode: Literal["fan_in", "fan_avg"], bias: float, head: Head) -> Init:
    """Draw weights of variance 2 / fan: Xavier's, corrected for the half of the signal that ReLU stops.

    The standard deviation is sqrt(2 / fan), not 2 / sqrt(fan); with `fan_in` this is kaiming.
    """
    return gaussian(lambda layer: sqrt(2 / fan(layer, mode)), bias=bias, head=head)


@register("init")
def kaiming(*, mode: Literal["fan_in", "fan_out"], bias: float, head: Head) -> Init:
    """Draw weights of variance 2 / fan, which keeps the scale of signals through ReLU layers (arXiv 1502.01852).

    `fan_in` keeps the forward signal's, `fan_out` the gradient's.
    """
    return gaussian(lambda layer: sqrt(2 / fan(layer, mode)), bias=bias, head=head)


@register("init")
def lecun(*, bias: float, head: Head) -> Init:
    """Draw weights of variance 1 / fan_in (LeCun et al. 1998), which SELU needs to normalize itself."""
    return gaussian(lambda layer: sqrt(1 / layer.fan_in), bias=bias, head=head)


def gaussian(std: Callable[[Layer], float], *, bias: float, head: Head) -> Init:
    """Return the Init that draws each layer's weight from N(0, std(layer)^2)."""
    return initialization(lambda layer: nn.init.normal_(layer.weight, std=std(layer)), bias=bias, head=head)


def fan(layer: Layer, mode: str) -> float:
    """Return the layer's fan of a mode: fan_in, fan_out or their mean fan_avg."""
    return {"fan_in": layer.fan_in, "fan_out": layer.fan_out, "fan_avg": (layer.fan_in + layer.fan_out) / 2}[mode]
