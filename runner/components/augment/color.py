"""Augmentations of brightness, contrast and color."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import torch
from torch import Tensor

from runner.components.augment.pixels import select
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NonNegative, Range, Unit

_Shape = tuple[int, int, int]

# Eigenvalues and eigenvectors (columns) of ImageNet's RGB covariance, values in 0..1, from fb.resnet.torch
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@register("augment")
def color_jitter(
    shape: _Shape,
    *,
    brightness: NonNegative,
    contrast: NonNegative,
    saturation: NonNegative,
    hue: Annotated[float, Range(0, 0.5)],
    order: Literal["fixed", "random"],
) -> Augment:
    """Multiply brightness, contrast and saturation by random factors, and turn the hue by a random angle.

    Contrast is relative to the image's mean gray, saturation to each pixel's gray (one-channel images have none).

    Args:
        shape: Image shape (C, H, W).
        brightness: Factor is uniform in [max(0, 1 - brightness), 1 + brightness]; >= 0.
        contrast: Same for contrast.
        saturation: Same for saturation.
        hue: Share of a full turn, uniform in [-hue, hue], as in torchvision; in [0, 0.5].
        order: `fixed`: brightness, contrast, saturation, hue; `random`: each image has an order of its own, as in
            torchvision.

    Raises:
        ConfigError: Images do not have three channels, and `hue` is above 0.
    """
    if hue > 0 and shape[0] != 3:
        raise ConfigError(
            f"augment.color_jitter.hue: got {hue:g}, must be 0 for images of {shape[0]} channels, which have no hue"
        )
    return _make_jitter((brightness, contrast, saturation), hue, order)


def _make_jitter(reaches: tuple[float, float, float], hue: float, order: Literal["fixed", "random"]) -> Augment:
    """Return the augmentation whose factors and turn reach so far."""
    places = 3 + (hue > 0)
    orders = torch.tensor(list(itertools.permutations(range(places))))

    def apply(images: Tensor, draws: Draws) -> Tensor:
        factors = [_jitter_factor(draws.uniform[:, i], reach) for i, reach in enumerate(reaches)]
        turn = (2 * draws.uniform[:, 3] - 1) * hue if hue else None
        out = images.float()
        if order == "fixed":
            out = _jitter_in_order(out, factors, turn)
        else:
            drawn = orders.to(out.device, non_blocking=True).index_select(
                0, (draws.uniform[:, -1] * len(orders)).long()
            )
            for which in drawn.unbind(1):
                out = _jitter_one(out, which[:, None, None, None], factors, turn)
        return out.round_().to(torch.uint8)

    return Augment(apply, uniforms=places + (order == "random"))


def _jitter_in_order(images: Tensor, factors: list[Tensor], turn: Tensor | None) -> Tensor:
    """Return the images with brightness, contrast, saturation and hue changed, in this order."""
    out = blend_images(images, torch.zeros((), device=images.device), factors[0])
    out = blend_images(out, gray_of(out).mean((1, 2, 3), keepdim=True), factors[1])
    out = blend_images(out, gray_of(out), factors[2])
    return out if turn is None else _turn_hue(out, turn)


def _jitter_one(images: Tensor, which: Tensor, factors: list[Tensor], turn: Tensor | None) -> Tensor:
    """Return the images with brightness, contrast, saturation or hue changed where `which` (B, 1, 1, 1) is 0 to 3."""
    gray = gray_of(images)
    other = gray.where(which == 2, gray.mean((1, 2, 3), keepdim=True)) * (which > 0)
    factor = factors[0].where(which == 0, factors[1].where(which == 1, factors[2]))
    out = blend_images(images, other, factor)
    return out if turn is None else _turn_hue(images, turn).where(which == 3, out)


@register("augment")
def grayscale(shape: _Shape, *, p: Unit) -> Augment:
    """Replace each image by its gray with probability `p`, in [0, 1]; all channels get the same values.

    Args:
        shape: Image shape (C, H, W).
        p: Probability.

    Raises:
        ConfigError: Images do not have three channels.
    """
    if shape[0] != 3:
        raise ConfigError(f"augment.grayscale: got images of {shape[0]} channels, must be 3 (red, green, blue)")

    def apply(images: Tensor, draws: Draws) -> Tensor:
        gray = gray_of(images.float()).round_().to(torch.uint8).repeat(1, 3, 1, 1)
        return select((draws.uniform < p)[:, :, None, None], gray, images)

    return Augment(apply, uniforms=1)


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


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Return the images (B, 3, H, W), values in 0..255, with the hue of HSV turned by shares (B,) of a full turn."""
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    over = chroma.clamp(min=torch.finfo(images.dtype).tiny)
    # In sixths of a turn from red; of two equal largest channels the formulas agree
    sixths = torch.where(value == green, 2 + (blue - red) / over, 4 + (red - green) / over)
    sixths = torch.where(value == red, (green - blue) / over, sixths) + 6 * turn[:, None, None]
    places = sixths[:, None] + torch.tensor([5.0, 3.0, 1.0])[:, None, None].to(images.device, non_blocking=True)
    places = places.remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(places, 4 - places).clamp(0, 1)


def gray_of(images: Tensor) -> Tensor:
    """Return brightness (B, 1, H, W): ITU-R 601 for RGB, the mean of the channels otherwise."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
