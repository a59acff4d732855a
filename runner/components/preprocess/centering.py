"""Scale, center and standardize. Every component maps (B, C, H, W) to float32 of the same shape.

Pixels are uint8 and are divided by 255 where a component says so. Features are floats, which nothing divides by 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from runner.components.preprocess.values import WHITE, origin_of, white_of
from runner.engine.contracts import Preprocess, Split
from runner.errors import ConfigError
from runner.registry import register

# Images per chunk; larger chunks leave the CPU cache and take five times as long
_CHUNK = 256
# (C, H, W)
_Shape = tuple[int, int, int]
# Axes that a statistic is computed over
_GLOBAL, _CHANNEL, _FEATURE = (0, 1, 2, 3), (0, 2, 3), (0,)


@register("preprocess")
def none() -> Preprocess:
    """Return the raw values 0..255 as float32."""
    return Rescale(1.0)


@register("preprocess")
def scale01() -> Preprocess:
    """Return the values divided by 255: black is 0, white is 1.

    Raises:
        ConfigError: The data are features, which have no range.
    """
    return Rescale(1 / WHITE)


@register("preprocess")
def global_mean(shape: _Shape) -> Preprocess:
    """Return the values / 255 minus their global mean, one number, over the training split."""
    return CenterAndScale(shape, _GLOBAL, _range)


@register("preprocess")
def channel_mean(shape: _Shape) -> Preprocess:
    """Return the values / 255 minus the per-channel mean of the training split (VGG, arXiv 1409.1556, section 2.1)."""
    return CenterAndScale(shape, _CHANNEL, _range)


@register("preprocess")
def mean_image(shape: _Shape) -> Preprocess:
    """Return the values / 255 minus the mean training image (AlexNet, Krizhevsky et al. 2012, section 2)."""
    return CenterAndScale(shape, _FEATURE, _range)


@register("preprocess")
def standardize(shape: _Shape) -> Preprocess:
    """Return the values with mean 0 and standard deviation 1 per channel over the training split.

    The standard deviation is that of the population (divided by n). A constant channel becomes 0.
    """
    return CenterAndScale(shape, _CHANNEL, _std_or_range)


@register("preprocess")
def per_feature(shape: _Shape) -> Preprocess:
    """Return the values with mean 0 and standard deviation 1 per pixel and channel over the training split.

    A pixel that is constant in the training split becomes 0 there and is only shifted elsewhere.
    """
    return CenterAndScale(shape, _FEATURE, _std_or_range)


def _range(std: Tensor, white: float) -> Tensor:
    """Return the divisor that maps 0..white to 0..1."""
    return torch.full_like(std, white)


def _std_or_range(std: Tensor, white: float) -> Tensor:
    """Return the divisor that makes the standard deviation 1; `white` where it is 0."""
    return torch.where(std > 0, std, white)


class Rescale(nn.Module):
    """Multiply by a constant; nothing is fitted."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def fit(self, train: Split) -> None:
        """Raise ConfigError for features if the factor is one of pixels; there are no statistics."""
        if self.factor != 1 and white_of(train) != WHITE:
            raise ConfigError("preprocess=scale01: features have no range 0..255; choose standardize or none")

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32."""
        return images.to(torch.float32, copy=True).mul_(self.factor)


class CenterAndScale(nn.Module):
    """Return `(x - mean) / divide(std, white)`, with mean and std over `axes` of the training split."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: _Shape, axes: tuple[int, ...], divide: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self.axes, self.divide = axes, divide
        sizes = [1 if axis in axes else length for axis, length in enumerate((1, *shape))]
        self.register_buffer("mean", torch.zeros(sizes))
        self.register_buffer("scale", torch.ones(sizes))

    def fit(self, train: Split) -> None:
        """Compute the statistics from the training split."""
        mean, std = _mean_and_std(train, self.axes)
        self.mean.copy_(mean)
        self.scale.copy_(1 / self.divide(std, white_of(train)))

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32."""
        # In place on a copy: a second large tensor would cost more than the arithmetic. A constant becomes 0 exactly.
        return images.to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)


def _mean_and_std(train: Split, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation over the axes (kept, of length 1), in float64."""
    origin = origin_of(train).mean(axes, keepdim=True)
    total = squares = torch.zeros(())
    count = 0
    for images in _chunks(train):
        # Sums of integers are exact in float64
        values = images - origin
        total = total + values.sum(axes, keepdim=True)
        squares = squares + values.square().sum(axes, keepdim=True)
        count += images.numel() // total.numel()
    mean = total / count
    return mean + origin, (squares / count - mean.square()).clamp(min=0).sqrt()


def _chunks(train: Split) -> Iterator[Tensor]:
    """Yield all images of a split in order, in chunks, as float64."""
    for index in torch.split(torch.arange(len(train.labels)), _CHUNK):
        yield train.fetch(index).double()
