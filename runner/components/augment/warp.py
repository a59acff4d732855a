"""Geometric augmentations as coordinate maps, and their fusion into one resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.contracts import Augment, Draws

# x, y in pixels from the image center, each broadcastable to (B, H, W)
Grid = tuple[Tensor, Tensor]
_GridMap = Callable[[Grid, Draws], Grid]
# Outside of the image: black, nearest pixel, mirrored image
Mode = Literal["zeros", "border", "reflect"]


@dataclass(frozen=True, kw_only=True)
class Geometric(Augment):
    """An augmentation that moves pixels: `trace` maps output coordinates to the input coordinates they show."""

    trace: _GridMap
    mode: Mode


def make_geometric(trace: _GridMap, *, uniforms: int, mode: Mode) -> Geometric:
    """Return the augmentation that samples its input at the coordinates that `trace` returns."""

    def apply(images: Tensor, draws: Draws) -> Tensor:
        return resample(images, trace(pixel_grid(images), draws), mode)

    return Geometric(apply=apply, uniforms=uniforms, trace=trace, mode=mode)


def fuse_geometric(augments: Sequence[Augment]) -> list[Augment]:
    """Return the augmentations with each run of adjacent geometric ones of one mode fused into one resampling.

    Pixels are blurred once instead of per operation, and one operation can bring back what another moved out of the
    frame.
    """
    fused: list[Augment] = []
    for part in augments:
        last = fused[-1] if fused else None
        if isinstance(part, Geometric) and isinstance(last, Geometric) and part.mode == last.mode:
            fused[-1] = _compose(last, part)
        else:
            fused.append(part)
    return fused


def _compose(first: Geometric, second: Geometric) -> Geometric:
    """Return two geometric augmentations as one, with their draws concatenated."""

    def trace(grid: Grid, draws: Draws) -> Grid:
        first_uniforms, second_uniforms = draws.uniform[:, : first.uniforms], draws.uniform[:, first.uniforms :]
        return first.trace(second.trace(grid, Draws(second_uniforms, draws.epoch)), Draws(first_uniforms, draws.epoch))

    return make_geometric(trace, uniforms=first.uniforms + second.uniforms, mode=first.mode)


def pixel_grid(images: Tensor) -> Grid:
    """Return the coordinates of an image's own pixels."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    return x[None, None, :], y[None, :, None]


def resample(images: Tensor, grid: Grid, mode: Mode) -> Tensor:
    """Return the uint8 images sampled bilinearly at the grid's coordinates and rounded to uint8."""
    batch, _, height, width = images.shape
    # grid_sample's -1 and 1 are the image's edges
    unit = (grid[0] * (2 / width), grid[1] * (2 / height))
    places = torch.stack([axis.expand(batch, height, width) for axis in unit], -1)
    padding = {"zeros": "zeros", "border": "border", "reflect": "reflection"}[mode]
    read = F.grid_sample(images.float(), places, mode="bilinear", padding_mode=padding, align_corners=False)
    return read.round_().to(torch.uint8)


def uniform_between(uniform: Tensor, low: float, high: float) -> Tensor:
    """Return numbers (B, 1, 1), uniform between two bounds, from draws (B,)."""
    return (low + uniform * (high - low))[:, None, None]
