"""Structured initializations: orthogonal, Dirac and zero-initialized residual branches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from runner.components.init.gains import Gain, squared_gain
from runner.components.init.layers import Head, WeightLayer, make_init
from runner.components.init.variance_scaling import kaiming
from runner.engine.contracts import Init
from runner.engine.parametrized import LayerWeight
from runner.engine.parts import CONVOLUTIONS, NORMS, Residual, ends_branch, standardizes_weight
from runner.errors import ConfigError
from runner.registry import register

_Weighted = (*CONVOLUTIONS, nn.Linear, *NORMS)


@register("init")
def orthogonal(*, gain: Gain, bias: float, head: Head) -> Init:
    """Draw matrices with orthonormal rows or columns, times `gain` (Saxe et al. 2013, arXiv 1312.6120).

    A convolution's weight is a matrix with one row per filter.

    Args:
        gain: Factor on the weights, > 0, or whose it is, see `gains.py`; sqrt(2) suits ReLU.
        bias: Value of all biases.
        head: Classifier weights, see the package.
    """

    def init(model: nn.Module) -> None:
        factor = gain if isinstance(gain, float) else squared_gain(gain, model) ** 0.5
        make_init(lambda layer: nn.init.orthogonal_(layer.weight, factor), bias=bias, head=head)(model)

    return init


@register("init")
def dirac(*, bias: float, head: Head) -> Init:
    """Make convolutions pass their inputs through: filter `o` of each group picks input `o` (arXiv 1706.00388).

    Filters beyond the number of inputs, and linear layers, are drawn as by `kaiming`: zeros would never learn.
    """

    def draw(layer: WeightLayer) -> None:
        nn.init.normal_(layer.weight, std=(2 / layer.fan_in) ** 0.5)
        if isinstance(layer.module, CONVOLUTIONS):
            for filters in layer.weight.chunk(layer.groups):
                nn.init.dirac_(filters[: layer.weight.shape[1]])

    return make_init(draw, bias=bias, head=head)


@register("init")
def residual(*, bias: float, head: Head) -> Init:
    """Draw as `kaiming`, then set the last weighted layer of every residual branch to zero: blocks start as identities.

    If a norm ends the branch, its scale is set to zero: behind a convolution of zeros the norm would multiply gradients
    by 1 / sqrt(eps). Otherwise it is the convolution (Goyal et al. 2017, arXiv 1706.02677, section 5.1).

    Args:
        bias: Value of all biases.
        head: Classifier weights, see the package.

    Raises:
        ConfigError: The model has no residual branches, a ReLU follows that layer (its gradient at zero is zero, for
            good), or the norm's scale is not learned.
    """
    he = kaiming(mode="fan_in", gain="relu", bias=bias, head=head)

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        ends = [_last_weight_layer(m.branch) for m in model.modules() if isinstance(m, Residual)]
        ends += [m for m in model.modules() if isinstance(m, _Weighted) and ends_branch(m)]
        if not ends:
            raise ConfigError(
                "init=residual: the model has no residual branch that ends in a weighted layer; choose another init"
            )
        _check_ends(ends)
        he(model)
        names = {module: path for path, module in model.named_modules()}
        for last in ends:
            weight = LayerWeight(last, names[last], "weight")
            if not weight.is_kept:
                weight.write(torch.zeros_like(weight.read()))

    return init


def _check_ends(ends: list[Any]) -> None:
    """Raise ConfigError for last layers that cannot be zero, or could not leave zero."""
    if not all(last.weight.requires_grad for last in ends):
        raise ConfigError(
            "init=residual: not supported with norm.scale=false, which keeps the scales at 1; choose another init"
        )
    if any(map(standardizes_weight, ends)):
        raise ConfigError(
            "init=residual: not supported with weight standardization of the last layer of a branch, which would "
            "multiply the gradients of zeros by 1 / sqrt(eps); choose another init"
        )


def _last_weight_layer(branch: nn.Module) -> nn.Module:
    """Return the last norm, convolution or linear layer of a branch."""
    for module in reversed(list(branch.modules())):
        if isinstance(module, nn.ReLU):
            raise ConfigError(
                "init=residual: not supported with a ReLU at the end of a branch, which would keep it at zero"
            )
        if isinstance(module, _Weighted):
            return module
    raise ConfigError("init=residual: a residual branch of this model has no weights")
