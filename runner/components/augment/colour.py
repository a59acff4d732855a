"""Changes of brightness, contrast and colour."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NonNegative

Shape = tuple[int, int, int]

# Eigenvalues and eigenvectors (columns) of the colours of ImageNet in 0..1, as fb.resnet.torch gives them
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@register("augment")
def color_jitter(*, brightness: NonNegative, contrast: NonNegative, saturation: NonNegative) -> Augment:
    """Multiply brightness, then contrast, then saturation, each by a factor in [1 - knob, 1 + knob], not below 0.

    Contrast is about the image's mean grey, saturation about each pixel's grey (images of one channel have none).
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        factors = [factor(draws.uniform[:, i], reach) for i, reach in enumerate((brightness, contrast, saturation))]
        out = blend(images.float(), torch.zeros((), device=images.device), factors[0])
        out = blend(out, grey(out).mean((1, 2, 3), keepdim=True), factors[1])
        return blend(out, grey(out), factors[2]).round_().to(torch.uint8)

    return Augment(apply, uniforms=3)


@register("augment")
def pca_color(shape: Shape, *, std: NonNegative) -> Augment:
    """Add to all pixels of an image a multiple of each principal direction of natural colours.

    The multiple is normal, with standard deviation `std` times the eigenvalue. Raises ConfigError unless images have
    three channels. Source: AlexNet (Krizhevsky et al. 2012, section 4.1), with the directions of ImageNet.
    """
    if shape[0] != 3:
        raise ConfigError(f"augment.pca_color: got images of {shape[0]} channels, must be 3 (red, green, blue)")
    steps = (255 * torch.tensor(EIGENVECTORS) * torch.tensor(EIGENVALUES)).T.contiguous()  # a direction in each row

    def apply(images: Tensor, draws: Draws) -> Tensor:
        normal = torch.erfinv(2 * draws.uniform.clamp(min=2**-24) - 1) * 2**0.5  # 0 would be infinitely far
        shift = std * normal @ steps.to(images.device, non_blocking=True)
        return (images + shift[:, :, None, None]).round_().clamp_(0, 255).to(torch.uint8)

    return Augment(apply, uniforms=3)


def factor(uniform: Tensor, reach: float) -> Tensor:
    """Return factors (B, 1, 1, 1), even in [1 - reach, 1 + reach] and not below 0."""
    low = max(0.0, 1 - reach)
    return (low + uniform * (1 + reach - low))[:, None, None, None]


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return `other + factor * (images - other)` within 0..255."""
    return torch.lerp(other, images, factor).clamp_(0, 255)


def grey(images: Tensor) -> Tensor:
    """Return the brightness (B, 1, H, W): of RGB by ITU-R 601, of other images the mean of the channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
