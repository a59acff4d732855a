"""Boxes of random area and aspect ratio, drawn again where they do not fit into the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

# Boxes that are drawn per image, as in torchvision; the first that fits counts
BOX_TRIES = 10


def draw_boxes(
    uniform: Tensor, scale: Sequence[float], ratio: Sequence[float], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return width and height (B, BOX_TRIES) in whole pixels of random boxes in images of `size` (H, W).

    Every image draws all its boxes, from the first 2 * BOX_TRIES columns of `uniform` (areas, then aspect ratios), so
    that its random numbers depend on no other image.

    Args:
        uniform: Random numbers (B, k) in [0, 1).
        scale: [low, high] share of the image area; uniform.
        ratio: [low, high] width / height; log-uniform.
        size: Image size (H, W).
    """
    areas, aspects = uniform[:, :BOX_TRIES], uniform[:, BOX_TRIES : 2 * BOX_TRIES]
    area = (scale[0] + areas * (scale[1] - scale[0])) * (size[0] * size[1])
    aspect = (math.log(ratio[0]) + aspects * math.log(ratio[1] / ratio[0])).exp()
    return (area * aspect).sqrt().round(), (area / aspect).sqrt().round()


def first_fitting(fits: Tensor, *values: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return whether an image has a box that fits (B,), and each value (B, BOX_TRIES) of its first such box (B,)."""
    failures = fits.logical_not().long().cumprod(1).sum(1, keepdim=True)
    number = failures.clamp(max=BOX_TRIES - 1)
    return (failures < BOX_TRIES)[:, 0], [value.gather(1, number)[:, 0] for value in values]
