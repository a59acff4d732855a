"""Where a random window lies in an image, from four random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

UNIFORMS = 4  # random numbers per image


@dataclass(frozen=True)
class Crop:
    """Bounds of a random window: its share of the image's area, and width / height."""

    scale: tuple[float, float]
    ratio: tuple[float, float]


def window(size: tuple[int, int], crop: Crop, uniforms: Sequence[float]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a random window in an image of `size` (width, height).

    The area is even within `scale`, the aspect ratio even in its logarithm within the part of `ratio` that fits, all
    places are equally likely; an area that fits with no such ratio becomes the largest that does (Szegedy et al. 2014,
    arXiv 1409.4842, section 6). torchvision draws again what does not fit instead, up to ten times, which makes
    large windows rarer.
    """
    width, height = size
    best = min(max(width / height, crop.ratio[0]), crop.ratio[1])  # of all ratios the one with the largest window
    largest = min(width * width / best, height * height * best)
    area = min(between(*crop.scale, uniforms[0]) * width * height, largest)
    low = max(math.log(crop.ratio[0]), math.log(area / height**2))
    high = min(math.log(crop.ratio[1]), math.log(width**2 / area))
    ratio = math.exp(between(low, max(low, high), uniforms[1]))
    wide = min(max(round(math.sqrt(area * ratio)), 1), width)
    tall = min(max(round(math.sqrt(area / ratio)), 1), height)
    return int(uniforms[2] * (width - wide + 1)), int(uniforms[3] * (height - tall + 1)), wide, tall


def between(low: float, high: float, uniform: float) -> float:
    """Return the number at a share `uniform` of the way."""
    return low + (high - low) * uniform
