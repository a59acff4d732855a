"""Augmentations of brightness, contrast and color."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NonNegative

_Shape = tuple[int, int, int]

# Eigenvalues and eigenvectors (columns) of ImageNet's RGB covariance, values in 0..1, from fb.resnet.torch
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@register("augment")
def color_jitter(*, brightness: NonNegative, contrast: NonNegative, saturation: NonNegative) -> Augment:
    """Multiply brightness, contrast and saturation, in this order, by random factors.

    Contrast is relative to the image's mean gray, saturation to each pixel's gray (one-channel images have none).

    Args:
        brightness: Factor is uniform in [max(0, 1 - brightness), 1 + brightness]; >= 0.
        contrast: Same for contrast.
        saturation: Same for saturation.
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        factors = [
            _jitter_factor(draws.uniform[:, i], reach) for i, reach in enumerate((brightness, contrast, saturation))
        ]
        out = blend_images(images.float(), torch.zeros((), device=images.device), factors[0])
        out = blend_images(out, grayscale(out).mean((1, 2, 3), keepdim=True), factors[1])
        return blend_images(out, grayscale(out), factors[2]).round_().to(torch.uint8)

    return Augment(apply, uniforms=3)


@register("augment")
def pca_color(shape: _Shape, *, std: NonNegative) -> Augment:
    """Add a random multiple of each principal direction of natural colors (Krizhevsky et al. 2012, section 4.1).

    The directions are those of ImageNet. The multiples are normal with standard deviation `std` times the eigenvalue,
    and the same for all pixels of an image.

    Args:
        shape: Image shape (C, H, W).
        std: Standard deviation in units of the eigenvalues, >= 0.

    Raises:
        ConfigError: Images do not have three channels.
    """
    if shape[0] != 3:
        raise ConfigError(f"augment.pca_color: got images of {shape[0]} channels, must be 3 (red, green, blue)")
    # One direction per row
    steps = (255 * torch.tensor(_EIGENVECTORS) * torch.tensor(_EIGENVALUES)).T.contiguous()

    def apply(images: Tensor, draws: Draws) -> Tensor:
        # A draw of 0 would become minus infinity
        normal = torch.erfinv(2 * draws.uniform.clamp(min=2**-24) - 1) * 2**0.5
        shift = std * normal @ steps.to(images.device, non_blocking=True)
        return (images + shift[:, :, None, None]).round_().clamp_(0, 255).to(torch.uint8)

    return Augment(apply, uniforms=3)


def _jitter_factor(uniform: Tensor, reach: float) -> Tensor:
    """Return factors (B, 1, 1, 1), uniform in [max(0, 1 - reach), 1 + reach]."""
    low = max(0.0, 1 - reach)
    return (low + uniform * (1 + reach - low))[:, None, None, None]


def blend_images(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return `other + factor * (images - other)` within 0..255."""
    return torch.lerp(other, images, factor).clamp_(0, 255)


def grayscale(images: Tensor) -> Tensor:
    """Return brightness (B, 1, H, W): ITU-R 601 for RGB, the mean of the channels otherwise."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
