"""Initializations with a structure: orthogonal maps, identities, residual branches that start as nothing."""

from __future__ import annotations

import torch
from torch import nn

from runner.components.init.layers import Head, Layer, initialization
from runner.components.init.scaled import kaiming
from runner.engine.contracts import Init
from runner.engine.parts import Residual, ends_branch, is_kept
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive

Weighted = nn.Conv2d | nn.Linear | nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm


@register("init")
def orthogonal(*, gain: Positive, bias: float, head: Head) -> Init:
    """Draw matrices with orthonormal rows or columns, times `gain` (arXiv 1312.6120); a filter is a row."""
    return initialization(lambda layer: nn.init.orthogonal_(layer.weight, gain), bias=bias, head=head)


@register("init")
def dirac(*, bias: float, head: Head) -> Init:
    """Let convolutions pass their inputs through: filter `o` of each group picks input `o` (arXiv 1706.00388).

    Filters beyond the number of inputs, and linear layers, are drawn as He does: zeros there would never learn.
    """

    def draw(layer: Layer) -> None:
        nn.init.normal_(layer.weight, std=(2 / layer.fan_in) ** 0.5)
        if layer.weight.dim() == 4:
            for filters in layer.weight.chunk(layer.groups):
                nn.init.dirac_(filters[: layer.weight.shape[1]])

    return initialization(draw, bias=bias, head=head)


@register("init")
def residual(*, bias: float, head: Head) -> Init:
    """Draw as He does, then set the last weighted layer of every residual branch to zero: blocks start as identities.

    Where a norm ends the branch this is its scale: behind a convolution of zeros the norm would multiply gradients by
    1 / sqrt(eps). Elsewhere it is the convolution (arXiv 1706.02677, section 5.1). Raises ConfigError for a model
    without residual branches, where a ReLU comes after that layer (its gradient at zero is zero, for good), and where
    the norm's scale is not learned.
    """
    he = kaiming(mode="fan_in", bias=bias, head=head)

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        ends = [last_weighted(m.branch) for m in model.modules() if isinstance(m, Residual)]
        ends += [m for m in model.modules() if isinstance(m, Weighted) and ends_branch(m)]
        if not ends:
            raise ConfigError(
                "init=residual: this model has no residual blocks that end in a weighted layer; choose another"
            )
        if not all(last.weight.requires_grad for last in ends):
            raise ConfigError(
                "init=residual: norm.scale=false keeps the scales that it sets to zero; choose another init"
            )
        he(model)
        for last in ends:
            if not is_kept(last.weight):
                nn.init.zeros_(last.weight)

    return init


def last_weighted(branch: nn.Module) -> Weighted:
    """Return the last norm, convolution or linear layer of a branch."""
    for module in reversed(list(branch.modules())):
        if isinstance(module, nn.ReLU):
            raise ConfigError(
                "init=residual: a ReLU ends the branches of this model and would keep them at zero for good"
            )
        if isinstance(module, Weighted):
            return module
    raise ConfigError("init=residual: a residual branch of this model has no weights")
