"""Building blocks of models: named sequences, layers with norms, and the check of the image size."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.errors import ConfigError


def sequential(**modules: nn.Module) -> nn.Sequential:
    """Return a Sequential of named modules."""
    return nn.Sequential(OrderedDict(modules))


def conv_norm(cin: int, cout: int, kernel: int, norm: NormMaker, *, stride: int = 1) -> tuple[nn.Conv2d, nn.Module]:
    """Return a convolution with padding `kernel // 2` and its norm; the convolution has a bias if the norm is none."""
    after = norm(cout, 2)
    bias = isinstance(after, nn.Identity)
    return nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=bias), after


def _linear_norm(cin: int, cout: int, norm: NormMaker) -> tuple[nn.Linear, nn.Module]:
    """Return a linear layer and its norm; the layer has a bias if the norm is none."""
    after = norm(cout, 0)
    return nn.Linear(cin, cout, bias=isinstance(after, nn.Identity)), after


def hidden_layers(
    features: int, widths: list[int], activation: ActivationMaker, norm: NormMaker
) -> tuple[nn.Sequential, int]:
    """Return hidden layers (linear, norm, activation, slot) of these widths and the number of output features."""
    layers: dict[str, nn.Module] = {}
    for i, width in enumerate(widths, 1):
        linear, after = _linear_norm(features, width, norm)
        layers[f"fc{i}"] = sequential(linear=linear, norm=after, act=activation(), slot=Slot("fc"))
        features = width
    return sequential(**layers), features


def check_halvings(model: str, shape: tuple[int, int, int], count: int) -> None:
    """Raise ConfigError if the image's sides cannot be halved `count` times."""
    _, height, width = shape
    if min(height, width) < 2**count:
        needed = 2**count
        raise ConfigError(
            f"model={model}: images of {height}x{width} are too small, its {count} halvings need {needed}x{needed}"
        )
