"""Normalizations: a component returns a maker `(channels, dims) -> module` that the model calls once per place.

`dims` is 0 for (B, C) and 2 for (B, C, H, W). All but `none` learn a scale (1 at first) and a shift (0) per channel.
"""

from __future__ import annotations

from torch import nn

from runner.engine.contracts import NormMaker
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive, PositiveInt, Unit


@register("norm")
def none() -> NormMaker:
    """Return a maker of modules that do nothing; a model gives the layer before them a bias."""
    return lambda channels, dims: nn.Identity()


@register("norm")
def batch(*, momentum: Unit, eps: Positive, scale: bool) -> NormMaker:
    """Return a maker of batch norms: statistics per channel over the batch and the pixels (arXiv 1502.03167).

    Evaluation uses the running mean and variance of the training batches. Without a `scale` only the shift is learned
    (arXiv 2404.00498): before a ReLU the next layer can scale as well.
    """

    def make(channels: int, dims: int) -> nn.Module:
        kind = nn.BatchNorm2d if dims else nn.BatchNorm1d
        made = kind(channels, eps=eps, momentum=momentum)
        made.weight.requires_grad_(scale)
        return made

    return make


@register("norm")
def layer(*, eps: Positive) -> NormMaker:
    """Return a maker of layer norms: statistics per example over channels and pixels (arXiv 1607.06450)."""

    def make(channels: int, dims: int) -> nn.Module:
        return nn.GroupNorm(1, channels, eps=eps) if dims else nn.LayerNorm(channels, eps=eps)

    return make


@register("norm")
def instance(*, eps: Positive) -> NormMaker:
    """Return a maker of instance norms: statistics per example and channel over the pixels (arXiv 1607.08022).

    Raises ConfigError for a fully connected layer: one value per channel has no spread.
    """

    def make(channels: int, dims: int) -> nn.Module:
        if not dims:
            raise ConfigError(f"norm=instance: a fully connected layer ({channels} features) has no pixels to average")
        return nn.InstanceNorm2d(channels, eps=eps, affine=True)

    return make


@register("norm")
def group(*, groups: PositiveInt, eps: Positive) -> NormMaker:
    """Return a maker of group norms: statistics per example and group of channels (arXiv 1803.08494).

    Raises ConfigError where the channels of a place do not divide into `groups`.
    """

    def make(channels: int, dims: int) -> nn.Module:
        if channels % groups:
            raise ConfigError(
                f"norm.groups: got {groups}, must divide the {channels} channels of every normalized layer"
            )
        return nn.GroupNorm(groups, channels, eps=eps)

    return make
