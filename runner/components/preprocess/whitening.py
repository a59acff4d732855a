"""Rotate pixels into the principal axes of the training split, and whiten them.

Every component maps (B, C, H, W) to float32 of the same shape. Pixels are divided by 255, features are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from runner.components.preprocess.values import WHITE, origin_of, white_of
from runner.engine.contracts import Preprocess, Split
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive

# More features would take minutes and gigabytes for the eigendecomposition
_MAX_FEATURES = 8192
# (C, H, W)
_Shape = tuple[int, int, int]


@register("preprocess")
def pca(shape: _Shape) -> Preprocess:
    """Return the principal components of values / 255, largest first, reshaped to (C, H, W).

    The covariance over the training split (divided by n - 1) becomes diagonal. The sign of each component makes its
    largest weight positive.

    Raises:
        ConfigError: Images have more than 8,192 features.
    """
    return Rotation("pca", shape, lambda axes, variances: axes)


@register("preprocess")
def pca_whiten(shape: _Shape, *, eps: Positive) -> Preprocess:
    """Return the principal components divided by sqrt(variance + eps): the covariance becomes the identity.

    The division applies to the rotated data, by the root of the variance and not by the variance.

    Args:
        shape: Image shape (C, H, W).
        eps: Constant added to each variance of values / 255, > 0.

    Raises:
        ConfigError: Images have more than 8,192 features.
    """
    return Rotation("pca_whiten", shape, lambda axes, variances: axes / (variances + eps).sqrt())


@register("preprocess")
def zca(shape: _Shape, *, eps: Positive) -> Preprocess:
    """Return ZCA-whitened values: PCA whitening rotated back into pixels (Bell and Sejnowski 1997).

    Of all whitening transforms it changes the image least (Krizhevsky 2009, appendix A).

    Args:
        shape: Image shape (C, H, W).
        eps: Constant added to each variance of values / 255, > 0.

    Raises:
        ConfigError: Images have more than 8,192 features.
    """
    return Rotation("zca", shape, lambda axes, variances: axes / (variances + eps).sqrt() @ axes.T)


class Rotation(nn.Module):
    """Return `(x / 255 - mean) @ matrix`; the matrix is made of the principal axes (columns) and their variances.

    For features it is `(x - mean) @ matrix`.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, name: str, shape: _Shape, make: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make
        features = math.prod(shape)
        if features > _MAX_FEATURES:
            # Covariance, eigenvectors and workspace in float64
            memory = 6 * 8 * features**2 / 2**30
            given = f"{features} features ({' x '.join(map(str, shape))}), which need {memory:.0f} GB"
            raise ConfigError(f"preprocess={name}: got {given}, must be <= {_MAX_FEATURES}")
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("matrix", torch.eye(features))

    def fit(self, train: Split) -> None:
        """Compute mean and principal axes from the training split."""
        mean, covariance = _mean_and_covariance(train)
        variances, axes = torch.linalg.eigh(covariance)
        variances, axes = variances.flip(0).clamp(min=0), axes.flip(1)
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        # Features are divided by 255 like pixels, which the statistics undo
        undo = WHITE / white_of(train)
        self.mean.copy_(mean / undo)
        self.matrix.copy_(self.make(axes * largest.sign(), variances) * undo)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32."""
        centered = images.to(torch.float32, copy=True).flatten(1).div_(WHITE).sub_(self.mean)
        return torch.mm(centered, self.matrix).view(images.shape)


def _mean_and_covariance(train: Split) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and covariance (D, D), divided by n - 1, of pixels / 255 or of features, in float64.

    float32 holds the products of pixels - 128 and their sums over 1,024 images exactly, so that the fast multiplication
    loses nothing. Features are multiplied in float64, as distances from the first example.
    """
    white = white_of(train)
    exact = torch.float32 if white == WHITE else torch.float64
    origin = origin_of(train).flatten() + (128 if white == WHITE else 0)
    total = products = torch.zeros(())
    for index in torch.split(torch.arange(len(train.labels)), 1024):
        values = train.fetch(index).flatten(1).to(exact) - origin.to(exact)
        total = total + values.sum(0, dtype=torch.float64)
        products = products + (values.T @ values).double()
    count = len(train.labels)
    mean = total / count
    covariance = (products - count * mean.outer(mean)) / (max(2, count) - 1)
    return (mean + origin) / white, covariance / white**2
