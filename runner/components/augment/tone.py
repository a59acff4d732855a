"""Augmentations of the tones of an image, and blur."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.augment.pixels import select
from runner.components.augment.policy_ops import equalize_tables, look_up
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import Whole
from runner.schema import BOUNDS, Positive, Range, Unit

_Shape = tuple[int, int, int]
# Values of a pixel
_LEVELS = 256


@register("augment")
def solarize(*, p: Unit, threshold: Annotated[int, Range(0, 255)]) -> Augment:
    """Invert the pixels of an image that are at least as bright as a threshold, with probability `p`.

    Args:
        p: Probability, in [0, 1].
        threshold: Least value 0..255 that is inverted; 0 inverts all.
    """

    def invert(images: Tensor) -> Tensor:
        return select(images >= threshold, images.bitwise_not(), images)

    return _with_probability(p, invert)


@register("augment")
def posterize(*, p: Unit, bits: Annotated[int, Range(1, 7)]) -> Augment:
    """Keep the highest bits of each pixel of an image, with probability `p`.

    Args:
        p: Probability, in [0, 1].
        bits: Bits of eight that stay, in 1..7.
    """
    return _with_probability(p, lambda images: images.bitwise_and(256 - 2 ** (8 - bits)))


@register("augment")
def equalize(shape: _Shape, *, p: Unit) -> Augment:
    """Equalize the histogram of each channel of an image with probability `p`, by Pillow's rule.

    Args:
        shape: Image shape (C, H, W).
        p: Probability, in [0, 1].

    Raises:
        ConfigError: Images have fewer pixels than levels, and the rule leaves these as they are.
    """
    if shape[1] * shape[2] < _LEVELS:
        raise ConfigError(
            f"augment.equalize: got images of {shape[1]}x{shape[2]}, must have at least {_LEVELS} pixels: smaller ones "
            "stay as they are"
        )

    def spread(images: Tensor) -> Tensor:
        levels = torch.arange(_LEVELS, device=images.device).expand(*images.shape[:2], 256)
        return look_up(images, equalize_tables(images, levels).clamp(0, 255).to(torch.uint8))

    return _with_probability(p, spread)


def _with_probability(p: float, change: Callable[[Tensor], Tensor]) -> Augment:
    """Return the augmentation that changes each image with a probability."""

    def apply(images: Tensor, draws: Draws) -> Tensor:
        return select((draws.uniform < p)[:, :, None, None], change(images), images)

    return Augment(apply, uniforms=1)


@register("augment")
def blur(
    shape: _Shape,
    *,
    p: Unit,
    sigma: Annotated[list[Positive], BOUNDS],
    kernel: Annotated[int, Whole("an odd number >= 3", first=3, step=2)],
) -> Augment:
    """Blur an image by a Gaussian of random width with probability `p`; the border is mirrored, as in torchvision.

    Args:
        shape: Image shape (C, H, W).
        p: Probability, in [0, 1].
        sigma: [low, high] standard deviation in pixels, > 0; uniform.
        kernel: Side of the kernel in pixels, odd; three standard deviations on both sides leave nothing out.

    Raises:
        ConfigError: Half of the kernel is not below the shorter side.
    """
    reach = kernel // 2
    if reach >= min(shape[1:]):
        limit = 2 * min(shape[1:]) - 1
        raise ConfigError(
            f"augment.blur.kernel: got {kernel}, must be <= {limit} to mirror images of {shape[1]}x{shape[2]}"
        )

    def apply(images: Tensor, draws: Draws) -> Tensor:
        width = sigma[0] + draws.uniform[:, 1:] * (sigma[1] - sigma[0])
        places = torch.arange(-reach, reach + 1, device=images.device)
        weights = torch.exp(-0.5 * (places / width).square())
        weights = weights / weights.sum(1, keepdim=True)
        out = images.float()
        for axis in (2, 3):
            padded = F.pad(out, [reach, reach, 0, 0] if axis == 3 else [0, 0, reach, reach], mode="reflect")
            out = torch.zeros_like(out)
            for i, weight in enumerate(weights[:, :, None, None, None].unbind(1)):
                out.addcmul_(weight, padded.narrow(axis, i, out.shape[axis]))
        smooth = out.round_().clamp_(0, 255).to(torch.uint8)
        return select((draws.uniform[:, :1] < p)[:, :, None, None], smooth, images)

    return Augment(apply, uniforms=2)
