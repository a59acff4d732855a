"""Cover parts of images."""

from __future__ import annotations

import functools
import math
from typing import Annotated

import torch
from torch import Tensor

from runner.components.augment.crop import Shape
from runner.components.augment.pixels import boxes, choose, choose_bits
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import BOUNDS, HalfOpenUnit, Positive, PositiveInt, Range, Unit

Level = Annotated[int, Range(0, 255)]


@register("augment")
def cutout(shape: Shape, *, size: PositiveInt | HalfOpenUnit, fill: Level) -> Augment:
    """Cover a square round a random pixel; at the border a part of it falls outside.

    `size` is its side in pixels, or, below 1, a share of the image's shorter side (at least one pixel). With an even
    side there is one row and one column more above and left of that pixel than below and right. Raises ConfigError for
    a square that would cover the whole image wherever it is. Source: DeVries & Taylor 2017, arXiv 1708.04552, 3.2.
    """
    side = int(size) if size >= 1 else max(1, round(size * min(shape[1:])))
    if side // 2 >= max(shape[1:]) - 1 and (side + 1) // 2 >= max(shape[1:]):
        seen = f"{shape[1]}x{shape[2]}"
        raise ConfigError(f"augment.cutout.size: got {size:g}, covers images of {seen} whole, wherever it is put")

    def apply(images: Tensor, draws: Draws) -> Tensor:
        row, column = draws.uniform.unbind(1)
        high, wide = (
            bands(length, side, images.device).index_select(0, (uniform * length).long())
            for uniform, length in ((row, images.shape[2]), (column, images.shape[3]))
        )
        return choose_bits((high[:, :, None] & wide[:, None, :])[:, None], fill, images)

    return Augment(apply, uniforms=2)


@functools.lru_cache(maxsize=8)
def bands(length: int, side: int, device: torch.device) -> Tensor:
    """Return for each place (length) a row of bytes, 255 at the `side` pixels round the place and 0 elsewhere."""
    places = torch.arange(length, device=device)
    distance = places - places[:, None]
    return ((distance >= -(side // 2)) & (distance < side - side // 2)).to(torch.uint8).neg_()


@register("augment")
def random_erasing(
    *, p: Unit, scale: Annotated[list[Unit], BOUNDS], ratio: Annotated[list[Positive], BOUNDS], fill: Level | None
) -> Augment:
    """Cover, with probability `p`, a box of random area, aspect ratio and place, all of it inside the image.

    The area is a share of the image's within `scale` [low, high], even; height / width is within `ratio`, even in its
    logarithm; a side longer than the image's is cut to it. Without a `fill` every pixel and channel gets a value of its
    own, even in 0..255. Source: Zhong et al. 2017, arXiv 1708.04896, algorithm 1.
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        happens, area, aspect, down, right, noise = draws.uniform.unbind(1)
        pixels = (scale[0] + area * (scale[1] - scale[0])) * (height * width)
        slope = (math.log(ratio[0]) + aspect * math.log(ratio[1] / ratio[0])).exp()
        high = (pixels * slope).sqrt().round().clamp(max=height)
        wide = (pixels / slope).sqrt().round().clamp(max=width)
        top, left = (down * (height - high + 1)).floor(), (right * (width - wide + 1)).floor()
        box = boxes(images, top, left, top + high, left + wide) & (happens < p)[:, None, None, None]
        return choose(box, scattered(noise, images) if fill is None else fill, images)

    return Augment(apply, uniforms=6)


def scattered(uniform: Tensor, images: Tensor) -> Tensor:
    """Return values 0..255, uint8 like the images, that depend on an image's draw (B,) and on the place in it.

    A hash of both (multiply and shift, as MurmurHash3 ends) in 32 bits that wrap, so that no table of a number per
    pixel is needed.
    """
    place = torch.arange(images[0].numel(), dtype=torch.int32, device=images.device)
    bits = (uniform * 2**24).int()[:, None] * 0x2E3779B1 + place * 0x165667B1
    for shift, factor in ((15, 0x05EBCA77), (13, 0x42B2AE3D)):
        bits = bits.bitwise_xor_(bits >> shift).mul_(factor)
    return (bits >> 16).to(torch.uint8).view(images.shape)
