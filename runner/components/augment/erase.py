"""Augmentations that cover parts of images."""

from __future__ import annotations

import functools
from typing import Annotated

import torch
from torch import Tensor

from runner.components.augment.boxes import BOX_TRIES, draw_boxes, first_fitting
from runner.components.augment.crop_flip import Shape
from runner.components.augment.pixels import box_masks, select, select_bits
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import BOUNDS, HalfOpenUnit, Positive, PositiveInt, Range, Unit

_Level = Annotated[int, Range(0, 255)]


@register("augment")
def cutout(shape: Shape, *, size: PositiveInt | HalfOpenUnit, fill: _Level) -> Augment:
    """Cover a square around a random pixel; at the border part of it falls outside (arXiv 1708.04552, section 3.2).

    With an even side, the square reaches one row and one column further above and left of the pixel than below and
    right.

    Args:
        shape: Image shape (C, H, W).
        size: Side in pixels, >= 1, or a share in [0, 1) of the shorter side (at least one pixel).
        fill: Value 0..255 of the square.

    Raises:
        ConfigError: The square would cover the whole image at every position.
    """
    side = int(size) if size >= 1 else max(1, round(size * min(shape[1:])))
    if side // 2 >= max(shape[1:]) - 1 and (side + 1) // 2 >= max(shape[1:]):
        seen = f"{shape[1]}x{shape[2]}"
        raise ConfigError(f"augment.cutout.size: got {size:g}, must leave a part of images of {seen} uncovered")

    def apply(images: Tensor, draws: Draws) -> Tensor:
        row, column = draws.uniform.unbind(1)
        high, wide = (
            _band_masks(length, side, images.device).index_select(0, (uniform * length).long())
            for uniform, length in ((row, images.shape[2]), (column, images.shape[3]))
        )
        return select_bits((high[:, :, None] & wide[:, None, :])[:, None], fill, images)

    return Augment(apply, uniforms=2)


@functools.lru_cache(maxsize=8)
def _band_masks(length: int, side: int, device: torch.device) -> Tensor:
    """Return a row of bytes per position (length, length): 255 at the `side` pixels around it, 0 elsewhere."""
    places = torch.arange(length, device=device)
    distance = places - places[:, None]
    return ((distance >= -(side // 2)) & (distance < side - side // 2)).to(torch.uint8).neg_()


@register("augment")
def random_erasing(
    *, p: Unit, scale: Annotated[list[Unit], BOUNDS], ratio: Annotated[list[Positive], BOUNDS], fill: _Level | None
) -> Augment:
    """Cover a box of random area, aspect ratio and position inside the image (arXiv 1708.04896, algorithm 1).

    As in torchvision, a box that is not smaller than the image on both sides is drawn again. After ten such boxes, the
    image is left as it is.

    Args:
        p: Probability, in [0, 1].
        scale: [low, high] share of the image area, each in [0, 1]; uniform.
        ratio: [low, high] height / width, > 0; log-uniform.
        fill: Value 0..255 of the box, or None for a uniform random value per pixel and channel.
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        happens, down, right, noise = draws.uniform[:, 2 * BOX_TRIES :].unbind(1)
        # The ratio is height / width here: height and width change places
        high, wide = draw_boxes(draws.uniform, scale, ratio, (height, width))
        found, (high, wide) = first_fitting((high < height) & (wide < width), high, wide)
        top, left = (down * (height - high + 1)).floor(), (right * (width - wide + 1)).floor()
        chosen = (found & (happens < p))[:, None, None, None]
        box = box_masks(images, top, left, top + high, left + wide) & chosen
        return select(box, _hash_noise(noise, images) if fill is None else fill, images)

    return Augment(apply, uniforms=2 * BOX_TRIES + 4)


def _hash_noise(uniform: Tensor, images: Tensor) -> Tensor:
    """Return pseudo-random uint8 values (B, C, H, W) from each image's draw (B,) and the pixel position.

    A 32-bit multiply-and-shift hash (MurmurHash3's finalizer) replaces a table of random numbers per pixel.
    """
    place = torch.arange(images[0].numel(), dtype=torch.int32, device=images.device)
    bits = (uniform * 2**24).int()[:, None] * 0x2E3779B1 + place * 0x165667B1
    for shift, factor in ((15, 0x05EBCA77), (13, 0x42B2AE3D)):
        bits = bits.bitwise_xor_(bits >> shift).mul_(factor)
    return (bits >> 16).to(torch.uint8).view(images.shape)
