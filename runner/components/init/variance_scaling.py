"""Constant weights and independent normal weights, which differ in their standard deviation.

fan_in and fan_out are the number of inputs of one output, and of outputs of one input (K^2 C for a convolution).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Literal

from torch import nn

from runner.components.init.gains import Gain, squared_gain
from runner.components.init.layers import Head, WeightLayer, make_init, set_head
from runner.engine.contracts import Init
from runner.registry import register
from runner.schema import NonNegative


@register("init")
def torch_default(*, head: Head) -> Init:
    """Keep PyTorch's default initialization of each layer: uniform, with variance 1 / (3 fan_in)."""
    return lambda model: set_head(model, head)


@register("init")
def constant(*, value: float, bias: float, head: Head) -> Init:
    """Set all weights to one value: the units of a layer stay identical, because the symmetry never breaks.

    Args:
        value: Value of all weights.
        bias: Value of all biases.
        head: Classifier weights, see the package.
    """
    return make_init(lambda layer: nn.init.constant_(layer.weight, value), bias=bias, head=head)


@register("init")
def zeros(*, bias: float, head: Head) -> Init:
    """Set all weights to zero: the gradients of hidden layers are exactly zero."""
    return constant(value=0.0, bias=bias, head=head)


@register("init")
def normal(*, std: NonNegative, bias: float, head: Head) -> Init:
    """Draw weights from N(0, std^2), independent of the layer's size.

    Args:
        std: Standard deviation, >= 0.
        bias: Value of all biases.
        head: Classifier weights, see the package.
    """
    return _normal_init(lambda layer: std, bias=bias, head=head)


register("init", "small_normal")(normal)
register("init", "large_normal")(normal)


@register("init")
def xavier(*, mode: Literal["fan_in", "fan_avg"], gain: Gain, bias: float, head: Head) -> Init:
    """Draw weights of variance gain^2 / fan; a gain of 1 keeps the signal's scale through linear layers (Glorot).

    Args:
        mode: `fan_avg` is (fan_in + fan_out) / 2 (Glorot and Bengio 2010, eq. 12); `fan_in` is the form in lecture
            notes.
        gain: Factor on the standard deviation, > 0, or whose it is, see `gains.py`.
        bias: Value of all biases.
        head: Classifier weights, see the package.
    """
    return _scaled_init(gain, mode, bias=bias, head=head)


@register("init")
def xavier_relu(*, mode: Literal["fan_in", "fan_avg"], bias: float, head: Head) -> Init:
    """Draw weights of variance 2 / fan: Xavier, corrected for the half of the signal that ReLU stops.

    The standard deviation is sqrt(2 / fan), not 2 / sqrt(fan). With `fan_in` this equals `kaiming`.

    Args:
        mode: `fan_avg` is (fan_in + fan_out) / 2.
        bias: Value of all biases.
        head: Classifier weights, see the package.
    """
    return _normal_init(lambda layer: sqrt(2 / _fan(layer, mode)), bias=bias, head=head)


@register("init")
def kaiming(*, mode: Literal["fan_in", "fan_out"], gain: Gain, bias: float, head: Head) -> Init:
    """Draw weights of variance gain^2 / fan; 2 / fan keeps the signal's scale through ReLU layers (arXiv 1502.01852).

    Args:
        mode: `fan_in` keeps the scale of activations (eq. 10), `fan_out` that of gradients (eq. 14).
        gain: Factor on the standard deviation, > 0, or whose it is, see `gains.py`.
        bias: Value of all biases.
        head: Classifier weights, see the package.
    """
    return _scaled_init(gain, mode, bias=bias, head=head)


@register("init")
def lecun(*, bias: float, head: Head) -> Init:
    """Draw weights of variance 1 / fan_in (LeCun et al. 1998), which SELU requires to self-normalize."""
    return _normal_init(lambda layer: sqrt(1 / layer.fan_in), bias=bias, head=head)


def _normal_init(std: Callable[[WeightLayer], float], *, bias: float, head: Head) -> Init:
    """Return the Init that draws each layer's weight from N(0, std(layer)^2)."""
    return make_init(lambda layer: nn.init.normal_(layer.weight, std=std(layer)), bias=bias, head=head)


def _scaled_init(gain: Gain, mode: str, *, bias: float, head: Head) -> Init:
    """Return the Init that draws each layer's weight with variance gain^2 / fan."""

    def init(model: nn.Module) -> None:
        squared = squared_gain(gain, model)
        _normal_init(lambda layer: sqrt(squared / _fan(layer, mode)), bias=bias, head=head)(model)

    return init


def _fan(layer: WeightLayer, mode: str) -> float:
    """Return fan_in, fan_out or their mean fan_avg."""
    return {"fan_in": layer.fan_in, "fan_out": layer.fan_out, "fan_avg": (layer.fan_in + layer.fan_out) / 2}[mode]
