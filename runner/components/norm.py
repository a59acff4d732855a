"""Normalization layers: a component returns a factory `(channels, dims) -> module`; a model calls it once per layer.

`dims` is 0 for features (B, C) and 2 for feature maps (B, C, H, W). All but `none` learn a scale, initially 1, and a
shift, initially 0, per channel.
"""

from __future__ import annotations

from torch import nn

from runner.engine.contracts import NormMaker
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive, PositiveInt, Unit


@register("norm")
def none() -> NormMaker:
    """Return a factory of identities; the model then gives the preceding layers a bias."""
    return lambda channels, dims: nn.Identity()


@register("norm")
def batch(*, momentum: Unit, eps: Positive, scale: bool) -> NormMaker:
    """Return a factory of batch norms: per-channel statistics over batch and pixels (arXiv 1502.03167, algorithm 1).

    Evaluation uses running statistics of the training batches.

    Args:
        momentum: Weight of the newest batch in the running statistics, in [0, 1].
        eps: Constant added to the variance, > 0.
        scale: Learn the scale. If false it stays 1: the layer after a ReLU can scale as well (arXiv 2404.00498).

    Returns:
        Factory of `BatchNorm2d` for (B, C, H, W) and `BatchNorm1d` for (B, C).
    """

    def make(channels: int, dims: int) -> nn.Module:
        kind = nn.BatchNorm2d if dims else nn.BatchNorm1d
        module = kind(channels, eps=eps, momentum=momentum)
        module.weight.requires_grad_(scale)
        return module

    return make


@register("norm")
def layer(*, eps: Positive) -> NormMaker:
    """Return a factory of layer norms: per-example statistics over channels and pixels (arXiv 1607.06450).

    Args:
        eps: Constant added to the variance, > 0.

    Returns:
        Factory of `GroupNorm(1)` for (B, C, H, W) and `LayerNorm` for (B, C).
    """

    def make(channels: int, dims: int) -> nn.Module:
        return nn.GroupNorm(1, channels, eps=eps) if dims else nn.LayerNorm(channels, eps=eps)

    return make


@register("norm")
def instance(*, eps: Positive) -> NormMaker:
    """Return a factory of instance norms: statistics per example and channel over the pixels (arXiv 1607.08022).

    Args:
        eps: Constant added to the variance, > 0.

    Raises:
        ConfigError: A layer is fully connected (one value per channel has no variance).
    """

    def make(channels: int, dims: int) -> nn.Module:
        if not dims:
            raise ConfigError(f"norm=instance: a fully connected layer ({channels} features) has no pixels to average")
        return nn.InstanceNorm2d(channels, eps=eps, affine=True)

    return make


@register("norm")
def group(*, groups: PositiveInt, eps: Positive) -> NormMaker:
    """Return a factory of group norms: statistics per example and group of channels (arXiv 1803.08494).

    Args:
        groups: Number of groups, >= 1.
        eps: Constant added to the variance, > 0.

    Raises:
        ConfigError: `groups` does not divide the channels of every normalized layer.
    """

    def make(channels: int, dims: int) -> nn.Module:
        if channels % groups:
            raise ConfigError(
                f"norm.groups: got {groups}, must divide the {channels} channels of every normalized layer"
            )
        return nn.GroupNorm(groups, channels, eps=eps)

    return make
