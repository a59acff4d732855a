"""Windows into images, of the image's own size or scaled to it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.augment.pixels import windows
from runner.components.augment.warp import Geometric, Grid, geometric, spread
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import AtMost
from runner.schema import BOUNDS, HalfOpenUnit, Positive, PositiveInt, Range

Shape = tuple[int, int, int]
Share = Annotated[float, Range(0, 1, open_low=True)]


@register("augment")
def crop(shape: Shape, *, padding: PositiveInt | HalfOpenUnit, mode: Literal["zeros", "reflect"]) -> Augment:
    """Pad an image on all sides and cut a window of its size at a random place (He et al. 2015, section 4.2).

    `padding` is in pixels, or, below 1, a share of the image's shorter side (at least one pixel). All
    (2 * padding + 1)² places are equally likely. Raises ConfigError for a reflection wider than the image.
    """
    padding = int(padding) if padding >= 1 else max(1, round(padding * min(shape[1:])))
    if mode == "reflect" and padding >= min(shape[1:]):
        raise ConfigError(f"augment.crop.padding: got {padding}, must be < {min(shape[1:])} to reflect the image")

    def apply(images: Tensor, draws: Draws) -> Tensor:
        top, left = (draws.uniform * (2 * padding + 1)).long().unbind(1)
        padded = F.pad(images, [padding] * 4) if mode == "zeros" else mirrored_all_round(images, padding)
        return windows(padded, top, left, shape[1:])

    return Augment(apply, uniforms=2)


@register("augment")
def resized_crop(
    shape: Shape, *, scale: Annotated[list[Share], BOUNDS], ratio: Annotated[list[Positive], BOUNDS]
) -> Geometric:
    """Cut a window of a random area and aspect ratio at a random place and scale it to the image's size.

    The area is a share of the image's within `scale` [low, high], even; width / height is within `ratio`, even in its
    logarithm. A window longer than the image is cut to it. Source: Szegedy et al. 2014 (arXiv 1409.4842), section 6.
    """
    height, width = shape[1:]

    def trace(grid: Grid, draws: Draws) -> Grid:
        area = spread(draws.uniform[:, 0], *scale) * (height * width)
        aspect = spread(draws.uniform[:, 1], math.log(ratio[0]), math.log(ratio[1])).exp()
        wide, high = (area * aspect).sqrt(), (area / aspect).sqrt()
        return (
            within(grid[0], wide.round().clamp(1, width), width, draws.uniform[:, 2]),
            within(grid[1], high.round().clamp(1, height), height, draws.uniform[:, 3]),
        )

    return geometric(trace, uniforms=4, mode="border")


@register("augment")
def short_side(
    shape: Shape, *, low: Annotated[float, Range(1), AtMost("high")], high: Annotated[float, Range(1)]
) -> Geometric:
    """Enlarge an image by a factor between `low` and `high` and cut a window of its old size at a random place.

    With 256/224 and 480/224 this is the training crop of VGG and ResNet (He et al. 2015, section 3.4): a short side
    between 256 and 480 pixels, and a window of 224.
    """

    def trace(grid: Grid, draws: Draws) -> Grid:
        factor = spread(draws.uniform[:, 0], low, high)
        across, down = (spread(draws.uniform[:, i], -0.5, 0.5) * (1 - 1 / factor) for i in (1, 2))
        return grid[0] / factor + across * shape[2], grid[1] / factor + down * shape[1]

    return geometric(trace, uniforms=3, mode="border")


def mirrored_all_round(images: Tensor, padding: int) -> Tensor:
    """Return the images with their mirror images as padding; torch's reflection takes no bytes on CUDA."""
    for axis in (2, 3):
        before = images.narrow(axis, 1, padding).flip(axis)
        after = images.narrow(axis, images.shape[axis] - 1 - padding, padding).flip(axis)
        images = torch.cat([before, images, after], axis)
    return images


def within(axis: Tensor, window: Tensor, length: int, uniform: Tensor) -> Tensor:
    """Return the places along one axis of a window of whole pixels scaled to `length`; none is outside the window."""
    start = (uniform[:, None, None] * (length - window + 1)).floor()
    place = (axis + length / 2) * (window / length) - 0.5
    return place.clamp(min=0).minimum(window - 1) + start - (length - 1) / 2
