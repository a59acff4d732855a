"""Pixels rotated into the principal axes of the training split, and whitened."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from runner.engine.contracts import Preprocess, Split
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive

WHITE = 255.0
FEATURES = 8192  # the most that the decomposition takes: minutes, and gigabytes
Shape = tuple[int, int, int]  # C, H, W


@register("preprocess")
def pca(shape: Shape) -> Preprocess:
    """Return the decorrelated values: the training images' principal components, largest first, as (C, H, W).

    Values / 255 minus their mean, rotated; the covariance over the training split (by n - 1) becomes diagonal. Each
    component's sign makes its largest weight positive. Raises ConfigError for more than 8,192 features.
    """
    return Rotated("pca", shape, lambda axes, variances: axes)


@register("preprocess")
def pca_whiten(shape: Shape, *, eps: Positive) -> Preprocess:
    """Return the principal components divided by sqrt(variance + eps): the covariance becomes the identity.

    It is the rotated data that are divided, by the root of the variance and not by the variance. Otherwise as pca.
    """
    return Rotated("pca_whiten", shape, lambda axes, variances: axes / (variances + eps).sqrt())


@register("preprocess")
def zca(shape: Shape, *, eps: Positive) -> Preprocess:
    """Return whitened values turned back into pixels: of all whitenings the one nearest to the image.

    Otherwise as pca_whiten. Source: Bell & Sejnowski 1997; Krizhevsky 2009, appendix A.
    """
    return Rotated("zca", shape, lambda axes, variances: axes / (variances + eps).sqrt() @ axes.T)


class Rotated(nn.Module):
    """`(x / 255 - mean) @ matrix`, with a matrix made of the principal axes (columns) and their variances."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, name: str, shape: Shape, make: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make
        features = math.prod(shape)
        if features > FEATURES:
            memory = 6 * 8 * features**2 / 2**30  # covariance, axes and what the decomposition works in, float64
            given = f"{features} features ({' x '.join(map(str, shape))}), which need {memory:.0f} GB"
            raise ConfigError(f"preprocess={name}: got {given}, must be <= {FEATURES}")
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("matrix", torch.eye(features))

    def fit(self, train: Split) -> None:
        """Take mean and principal axes from the training split."""
        mean, covariance = covariances(train)
        variances, axes = torch.linalg.eigh(covariance)
        variances, axes = variances.flip(0).clamp(min=0), axes.flip(1)
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        self.mean.copy_(mean)
        self.matrix.copy_(self.make(axes * largest.sign(), variances))

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32."""
        centred = images.to(torch.float32, copy=True).flatten(1).div_(WHITE).sub_(self.mean)
        return torch.mm(centred, self.matrix).view(images.shape)


def covariances(train: Split) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and the covariance (D, D), divided by n - 1, of all features / 255 in float64.

    Products of values - 128 and their sums over 1,024 images stay within the whole numbers that float32 holds exactly,
    so the fast multiplication loses nothing.
    """
    total = products = torch.zeros(())
    for index in torch.split(torch.arange(len(train.labels)), 1024):
        values = train.fetch(index).flatten(1).float() - 128
        total = total + values.sum(0, dtype=torch.float64)
        products = products + (values.T @ values).double()
    count = len(train.labels)
    mean = total / count
    covariance = (products - count * mean.outer(mean)) / (max(2, count) - 1)
    return (mean + 128) / WHITE, covariance / WHITE**2
