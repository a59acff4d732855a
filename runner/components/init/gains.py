"""Gains: what a layer's weights are multiplied by, so that an activation keeps the scale of the signal.

Those of torch (`torch.nn.init.calculate_gain`): 1 for linear and sigmoid, 5/3 for tanh, sqrt(2) for relu, 3/4 for selu,
sqrt(2 / (1 + slope^2)) for leaky_relu, whose slope is 0.01. `auto` is that of the model's activations, with their
slopes.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from runner.errors import ConfigError
from runner.schema import Positive

Gain = Positive | Literal["auto", "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]

_KNOWN: dict[type[nn.Module], Literal["sigmoid", "tanh", "relu", "leaky_relu", "selu"]] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "leaky_relu",
    nn.SELU: "selu",
}
# Activations of torch whose gain torch does not know
_UNKNOWN = (nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Hardswish, nn.Mish, nn.ReLU6, nn.CELU, nn.Hardsigmoid)


def squared_gain(gain: Gain, model: nn.Module) -> float:
    """Return the square of a gain, which is a whole number for relu.

    Raises:
        ConfigError: `auto` meets activations of several gains, or one whose gain torch does not know.
    """
    if not isinstance(gain, str):
        return gain**2
    if gain == "auto":
        return _of_activations(model)
    return 2.0 if gain == "relu" else nn.init.calculate_gain(gain) ** 2


def _of_activations(model: nn.Module) -> float:
    """Return the square of the gain that all activations of a model have, 1 for a model without them."""
    activations = [module for module in model.modules() if type(module) in (*_KNOWN, *_UNKNOWN)]
    for module in activations:
        if isinstance(module, _UNKNOWN):
            raise ConfigError(
                f"init.gain: got 'auto', but torch has no gain for {type(module).__name__}; choose relu or a number"
            )
    found = {_of_module(module): type(module).__name__ for module in activations}
    if len(found) > 1:
        raise ConfigError(f"init.gain: got 'auto', but the model has {' and '.join(found.values())}; choose one gain")
    return next(iter(found), 1.0)


def _of_module(module: nn.Module) -> float:
    """Return the square of an activation's gain."""
    name = _KNOWN[type(module)]
    if name != "leaky_relu":
        return squared_gain(name, module)
    slope = float(module.weight.detach()[0]) if isinstance(module, nn.PReLU) else module.negative_slope
    return nn.init.calculate_gain(name, slope) ** 2  # type: ignore[arg-type]
