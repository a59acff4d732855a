"""Pixels scaled, or shifted and scaled by statistics of the training split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from runner.engine.contracts import Preprocess, Split
from runner.registry import register

CHUNK = 256  # images at a time; larger parts leave the processor's cache and take five times as long
WHITE = 255.0
Shape = tuple[int, int, int]  # C, H, W
GLOBAL, CHANNEL, FEATURE = (0, 1, 2, 3), (0, 2, 3), (0,)  # the axes that a statistic runs over


@register("preprocess")
def none() -> Preprocess:
    """Return the raw values 0..255 as float32."""
    return Scaled(1.0)


@register("preprocess")
def scale01() -> Preprocess:
    """Return the values divided by 255, so that black is 0 and white is 1."""
    return Scaled(1 / WHITE)


@register("preprocess")
def global_mean(shape: Shape) -> Preprocess:
    """Return the values / 255 minus one number, their mean over the training split."""
    return Centred(shape, GLOBAL, to_white)


@register("preprocess")
def channel_mean(shape: Shape) -> Preprocess:
    """Return the values / 255 minus each channel's mean over the training split (VGG, arXiv 1409.1556, section 2.1)."""
    return Centred(shape, CHANNEL, to_white)


@register("preprocess")
def mean_image(shape: Shape) -> Preprocess:
    """Return the values / 255 minus the mean training image (AlexNet, Krizhevsky et al. 2012, section 2)."""
    return Centred(shape, FEATURE, to_white)


@register("preprocess")
def standardize(shape: Shape) -> Preprocess:
    """Return the values with mean 0 and standard deviation 1 per channel over the training split.

    The standard deviation is the population's (divided by n). A channel that never changes becomes 0.
    """
    return Centred(shape, CHANNEL, to_unit)


@register("preprocess")
def per_feature(shape: Shape) -> Preprocess:
    """Return the values with mean 0 and standard deviation 1 per pixel and channel over the training split.

    A pixel that never changes in training becomes 0 there (and is only shifted elsewhere).
    """
    return Centred(shape, FEATURE, to_unit)


def to_white(std: Tensor) -> Tensor:
    """Return the divisor that maps 0..255 to 0..1."""
    return torch.full_like(std, WHITE)


def to_unit(std: Tensor) -> Tensor:
    """Return the divisor that makes the standard deviation 1; 255 where there is none."""
    return torch.where(std > 0, std, WHITE)


class Scaled(nn.Module):
    """`x * factor`; nothing is fitted."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def fit(self, train: Split) -> None:
        """Do nothing: there are no statistics."""

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32."""
        return images.to(torch.float32, copy=True).mul_(self.factor)


class Centred(nn.Module):
    """`(x - mean) / divide(std)`, with mean and std over `axes` of the training split."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: Shape, axes: tuple[int, ...], divide: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.axes, self.divide = axes, divide
        kept = [1 if axis in axes else length for axis, length in enumerate((1, *shape))]
        self.register_buffer("mean", torch.zeros(kept))
        self.register_buffer("scale", torch.ones(kept))

    def fit(self, train: Split) -> None:
        """Take the statistics from the training split."""
        mean, std = moments(train, self.axes)
        self.mean.copy_(mean)
        self.scale.copy_(1 / self.divide(std))

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32."""
        # In place on a copy: a second large tensor would cost more than the arithmetic. A constant becomes 0 exactly.
        return images.to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)


def moments(train: Split, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation over the axes (kept, of length 1), in float64."""
    total = squares = torch.zeros(())
    count = 0
    for images in chunks(train):
        total = total + images.sum(axes, keepdim=True)  # whole numbers: exact in float64
        squares = squares + images.square().sum(axes, keepdim=True)
        count += images.numel() // total.numel()
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt()


def chunks(train: Split) -> Iterator[Tensor]:
    """Yield all images of a split in order, a few at a time, in float64."""
    for index in torch.split(torch.arange(len(train.labels)), CHUNK):
        yield train.fetch(index).double()
