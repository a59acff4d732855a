"""Random crops and flips."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.augment.boxes import BOX_TRIES, draw_boxes, first_fitting
from runner.components.augment.pixels import crop_windows, select
from runner.components.augment.warp import Geometric, Grid, make_geometric, uniform_between
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import AtMost
from runner.schema import BOUNDS, HalfOpenUnit, Positive, PositiveInt, Range, Unit

Shape = tuple[int, int, int]
_Share = Annotated[float, Range(0, 1, open_low=True)]


@register("augment")
def crop(shape: Shape, *, padding: PositiveInt | HalfOpenUnit, mode: Literal["zeros", "reflect"]) -> Augment:
    """Pad each image on all sides and cut a window of the original size at random (He et al. 2015, section 4.2).

    All (2 * padding + 1)^2 positions are equally likely.

    Args:
        shape: Image shape (C, H, W).
        padding: Pixels per side, >= 1, or a share in [0, 1) of the shorter side (at least one pixel).
        mode: Content of the padding: `zeros` (black) or `reflect` (mirrored image).

    Raises:
        ConfigError: The reflected padding is not below the shorter side.
    """
    padding = int(padding) if padding >= 1 else max(1, round(padding * min(shape[1:])))
    if mode == "reflect" and padding >= min(shape[1:]):
        raise ConfigError(f"augment.crop.padding: got {padding}, must be < {min(shape[1:])} to reflect the image")

    def apply(images: Tensor, draws: Draws) -> Tensor:
        top, left = (draws.uniform * (2 * padding + 1)).long().unbind(1)
        padded = F.pad(images, [padding] * 4) if mode == "zeros" else _reflect_pad(images, padding)
        return crop_windows(padded, top, left, shape[1:])

    return Augment(apply, uniforms=2)


@register("augment")
def resized_crop(
    shape: Shape, *, scale: Annotated[list[_Share], BOUNDS], ratio: Annotated[list[Positive], BOUNDS]
) -> Geometric:
    """Cut a window of random area and aspect ratio and resize it to the image size (arXiv 1409.4842, section 6).

    As in torchvision, a window that does not fit into the image is drawn again. After ten that do not, the window is
    the largest one in the center with the nearest allowed aspect ratio.

    Args:
        shape: Image shape (C, H, W).
        scale: [low, high] share of the image area, each in (0, 1]; uniform.
        ratio: [low, high] width / height, > 0; log-uniform.
    """
    height, width = shape[1:]
    slope = min(max(width / height, ratio[0]), ratio[1])
    # The window after ten failures: (height, width)
    largest = max(1, round(min(height, width / slope))), max(1, round(min(width, height * slope)))

    def trace(grid: Grid, draws: Draws) -> Grid:
        wide, high = draw_boxes(draws.uniform, scale, ratio, (height, width))
        fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
        found, (wide, high) = first_fitting(fits, wide, high)
        wide, high = wide.where(found, largest[1]), high.where(found, largest[0])
        left, top = (
            torch.where(found, (uniform * (room + 1)).floor(), (room / 2).floor())
            for uniform, room in ((draws.uniform[:, -2], width - wide), (draws.uniform[:, -1], height - high))
        )
        return _window_coordinates(grid[0], wide, width, left), _window_coordinates(grid[1], high, height, top)

    return make_geometric(trace, uniforms=2 * BOX_TRIES + 2, mode="border")


@register("augment")
def short_side(
    shape: Shape, *, low: Annotated[float, Range(1), AtMost("high")], high: Annotated[float, Range(1)]
) -> Geometric:
    """Enlarge each image by a random factor and cut a window of the original size at random.

    With 256/224 and 480/224 this is the training crop of VGG and ResNet (He et al. 2015, section 3.4): a shorter side
    of 256 to 480 pixels and a window of 224.

    Args:
        shape: Image shape (C, H, W).
        low: Smallest factor, >= 1.
        high: Largest factor, >= low.
    """

    def trace(grid: Grid, draws: Draws) -> Grid:
        factor = uniform_between(draws.uniform[:, 0], low, high)
        across, down = (uniform_between(draws.uniform[:, i], -0.5, 0.5) * (1 - 1 / factor) for i in (1, 2))
        return grid[0] / factor + across * shape[2], grid[1] / factor + down * shape[1]

    return make_geometric(trace, uniforms=3, mode="border")


def _reflect_pad(images: Tensor, padding: int) -> Tensor:
    """Return the images with reflected padding; torch's own does not support uint8 on CUDA."""
    for axis in (2, 3):
        before = images.narrow(axis, 1, padding).flip(axis)
        after = images.narrow(axis, images.shape[axis] - 1 - padding, padding).flip(axis)
        images = torch.cat([before, images, after], axis)
    return images


def _window_coordinates(axis: Tensor, window: Tensor, length: int, start: Tensor) -> Tensor:
    """Return coordinates along one axis of whole-pixel windows (B,) resized to `length`, clamped to the window."""
    window, start = window[:, None, None], start[:, None, None]
    place = (axis + length / 2) * (window / length) - 0.5
    return place.clamp(min=0).minimum(window - 1) + start - (length - 1) / 2


@register("augment")
def hflip(*, p: Unit) -> Augment:
    """Flip each image left to right with probability `p`, in [0, 1]."""
    return Augment(lambda images, draws: _flip_where(images, draws.uniform < p, 3), uniforms=1)


@register("augment")
def vflip(*, p: Unit) -> Augment:
    """Flip each image top to bottom with probability `p`, in [0, 1]."""
    return Augment(lambda images, draws: _flip_where(images, draws.uniform < p, 2), uniforms=1)


@register("augment")
def alternating_flip() -> Augment:
    """Flip each image left to right in every other epoch (Jordan 2024, arXiv 2404.00498, section 3.6).

    A coin per image decides between even and odd epochs, so that any two consecutive epochs show both forms.
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        return _flip_where(images, (draws.uniform < 0.5) ^ bool(draws.epoch % 2), 3)

    return Augment(apply, uniforms=1, per_epoch=False)


def _flip_where(images: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Return the images with those `chosen` (B, 1) bool flipped along an axis."""
    return select(chosen[:, :, None, None], images.flip(axis), images)
