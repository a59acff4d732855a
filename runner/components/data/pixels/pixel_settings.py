"""Knobs that say how the file of an image becomes pixels."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.components.data.pixels.color_modes import Alpha, ExtraBands
from runner.components.data.pixels.fit_image import Fit
from runner.registry import shared_knobs
from runner.schema import BOUNDS, Range

_Color = Literal["rgb", "gray", "auto"]
_Depth = Literal["auto"] | Annotated[int, Range(1, 32)] | Annotated[list[float], BOUNDS]


@shared_knobs
class PixelSettings:
    """The way from files to pixels; a data set asks for `pixels`.

    Args:
        color: `rgb`, `gray`, or `auto` for gray if every training image is gray.
        fit: How an image of another aspect ratio gets the size: `crop` (cover it), `pad` (black borders) or `squish`.
        depth: How gray values of more than 8 bits become 8 bits: number of bits, of which the upper 8 are kept, a range
            [low, high], or `auto` for the range of the training images.
        alpha: Background under transparent pixels, or `drop` to use the color that they have in the file.
        extra_bands: Whether bands of a TIFF beside color and transparency are an error or dropped.
    """

    def __init__(self, *, color: _Color, fit: Fit, depth: _Depth, alpha: Alpha, extra_bands: ExtraBands) -> None:
        self.color, self.fit, self.depth = color, fit, depth
        self.alpha, self.extra_bands = alpha, extra_bands
