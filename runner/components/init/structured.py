"""Initializations with a structure: residual branches that start as nothing."""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn

from runner.components.init.layers import Head
from runner.components.init.scaled import gaussian
from runner.engine.contracts import Init
from runner.engine.parts import Residual
from runner.errors import ConfigError
from runner.registry import register

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


@register("init")
def residual(*, bias: float, head: Head) -> Init:
    """Draw as He does, then set the last weighted layer of every residual branch to zero: blocks start as identities.

    Where a norm ends the branch this is its scale: behind a convolution of zeros the norm would divide gradients by
    sqrt(eps). Elsewhere it is the convolution (arXiv 1706.02677, section 5.1). Raises ConfigError without such blocks.
    """
    he = gaussian(lambda layer: sqrt(2 / layer.fan_in), bias=bias, head=head)

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        blocks = [m for m in model.modules() if isinstance(m, Residual)]
        if not blocks:
            raise ConfigError("init=residual: this model has no residual blocks; choose another init or model")
        he(model)
        for block in blocks:
            last_weighted(block.branch).weight.zero_()

    return init


def last_weighted(branch: nn.Module) -> nn.Conv2d:
    """Return the last norm, convolution or linear layer of a branch (typed as one of them)."""
    layers = [m for m in branch.modules() if isinstance(m, (nn.Conv2d, nn.Linear, *NORMS))]
    return layers[-1]  # type: ignore[return-value]
