"""Geometry: where each output pixel comes from, and one resample for all neighbouring ops of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.contracts import Augment, Draws

Grid = tuple[Tensor, Tensor]  # x, y in pixels from the image's centre, each of a shape that broadcasts to (B, H, W)
Trace = Callable[[Grid, Draws], Grid]
Mode = Literal["zeros", "border", "reflect"]  # what lies outside an image: black, its last pixels, its mirror image


@dataclass(frozen=True, kw_only=True)
class Geometric(Augment):
    """An augmentation that moves pixels: `trace` takes places in its output to the places of its input they show."""

    trace: Trace
    mode: Mode


def geometric(trace: Trace, *, uniforms: int, mode: Mode) -> Geometric:
    """Return the augmentation that reads its pixels at the places that `trace` gives."""

    def apply(images: Tensor, draws: Draws) -> Tensor:
        return sample(images, trace(centred(images), draws), mode)

    return Geometric(apply=apply, uniforms=uniforms, trace=trace, mode=mode)


def fuse(augments: Sequence[Augment]) -> list[Augment]:
    """Return the augmentations with each run of geometric neighbours of one mode made into one that resamples once.

    Pixels are blurred once instead of at every op, and what one op moves out of the frame the next can bring back.
    """
    fused: list[Augment] = []
    for part in augments:
        last = fused[-1] if fused else None
        if isinstance(part, Geometric) and isinstance(last, Geometric) and part.mode == last.mode:
            fused[-1] = joined(last, part)
        else:
            fused.append(part)
    return fused


def joined(first: Geometric, second: Geometric) -> Geometric:
    """Return two geometric augmentations in one, with the draws of both side by side."""

    def trace(grid: Grid, draws: Draws) -> Grid:
        mine, theirs = draws.uniform[:, : first.uniforms], draws.uniform[:, first.uniforms :]
        return first.trace(second.trace(grid, Draws(theirs, draws.epoch)), Draws(mine, draws.epoch))

    return geometric(trace, uniforms=first.uniforms + second.uniforms, mode=first.mode)


def centred(images: Tensor) -> Grid:
    """Return the places of an image's own pixels."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    return x[None, None, :], y[None, :, None]


def sample(images: Tensor, grid: Grid, mode: Mode) -> Tensor:
    """Return the images (uint8) read at the places of the grid, between pixels bilinearly, rounded to uint8."""
    batch, _, height, width = images.shape
    unit = (grid[0] * (2 / width), grid[1] * (2 / height))  # -1 and 1 are the image's edges
    places = torch.stack([axis.expand(batch, height, width) for axis in unit], -1)
    padding = {"zeros": "zeros", "border": "border", "reflect": "reflection"}[mode]
    read = F.grid_sample(images.float(), places, mode="bilinear", padding_mode=padding, align_corners=False)
    return read.round_().to(torch.uint8)


def spread(uniform: Tensor, low: float, high: float) -> Tensor:
    """Return numbers (B, 1, 1), even between two bounds, for draws (B,)."""
    return (low + uniform * (high - low))[:, None, None]
