"""Decode one image file, whole or as a random crop; errors name the file."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runner.components.data.pixels.color_modes import Colors, DeepImageError, check_bands, to_eight_bits
from runner.components.data.pixels.decoder_messages import Collected, note
from runner.components.data.pixels.fit_image import Fit, fit_image
from runner.components.data.pixels.image_kinds import open_image
from runner.engine.saving.storage import printable
from runner.errors import DataError
from runner.user_paths import full

_Result = TypeVar("_Result")
# (C, H, W)
_Pixels = NDArray[np.uint8]

# A JPEG is decoded at the smallest eighth of its size that has this many times the requested side
_JPEG_OVERSAMPLING = 2
# EXIF tag of the orientation; values from 5 on swap width and height
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, 5
# Keys of Image.info that may hold an orientation
_ORIENTATION_SOURCES = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
# Formats that are decoded at a fraction of their size. All their metadata come before the pixels
_JPEG = ("JPEG", "MPO")
_RGB = Colors()
# Random numbers per image: area, aspect ratio, left, top
CROP_UNIFORMS = 4


@dataclass(frozen=True)
class CropBounds:
    """Bounds of a random crop: its share of the image area, and width / height."""

    scale: tuple[float, float]
    ratio: tuple[float, float]


@dataclass(frozen=True)
class View:
    """How each image is seen: its size, the central share that is kept and, in training, bounds of a random crop."""

    # (H, W)
    size: tuple[int, int]
    center: float = 1.0
    crop: CropBounds | None = None
    fit: Fit = "crop"
    colors: Colors = _RGB

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return (self.colors.channels, *self.size)


def call_decoder(path: str, work: Callable[[str], _Result]) -> tuple[_Result, list[str]]:
    """Return `work(path)` and what decoders say about the file; raise DataError with the path for whatever they raise.

    To be called inside `with routed:`.
    """
    with Collected() as messages:
        try:
            # Opening a pipe would block
            if not stat.S_ISREG(os.stat(full(path)).st_mode):  # noqa: PTH116
                raise ValueError("not a regular file")
            return work(path), messages
        except DeepImageError:
            raise
        except Exception as error:
            # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
            reasons = "; ".join(dict.fromkeys([_error_text(error, path), *messages[:1]]))
            raise DataError(f"{printable(Path(path))}: cannot be read as an image ({reasons})") from error


def _error_text(error: Exception, path: str) -> str:
    """Return a decoder's message on one line, without the path."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    for place in (full(path), path):
        message = message.replace(f" {place!r}", "").replace(place, "it")
    return " ".join(message.split()) or type(error).__name__


def decode(path: str, view: View) -> _Pixels:
    """Return an image file as (C, H, W) uint8: upright, in 8-bit RGB or gray, and fitted to the size.

    Orientations in EXIF and XMP are applied, wherever they stand in the file. Animations and files with several pages
    keep their first frame. Scaling is bilinear with antialiasing. A large JPEG is decoded at the smallest fraction that
    still has twice the requested size. With `view.center` below 1 only that central share of both sides is kept.
    """
    with open_image(path) as image:
        return to_pixels(image, view)


def to_pixels(image: Any, view: View) -> _Pixels:
    """Return a Pillow image, loaded or not, as `decode` returns the image of a file."""
    check_bands(image, view.colors)
    enough = int(_JPEG_OVERSAMPLING * max(view.size) / view.center)
    # None keeps the color mode
    image.draft(None, (enough, enough))
    pixels = to_eight_bits(_upright(image), view.colors)
    return _to_array(fit_image(pixels, view.size, view.center, view.fit))


def decode_crop(path: str, view: View, uniforms: Sequence[float]) -> _Pixels:
    """Return a random crop of an image file, scaled to (C, H, W) uint8; `uniforms` are four numbers in [0, 1).

    Equals torchvision's `resized_crop` (bilinear, antialias) of the same window, pixel for pixel. A JPEG whose window
    is more than four times the requested size is decoded at a fraction of its size, and is close to it.
    """
    from PIL import Image

    assert view.crop is not None
    height, width = view.size
    with open_image(path) as image:
        check_bands(image, view.colors)
        # Before it is loaded, a PNG does not know the orientation that stands behind its pixels
        turned = None if image.format in _JPEG else _upright(image)
        whole = turned.size if turned else image.size[::-1] if _orientation(image) >= _SIDEWAYS else image.size
        left, top, wide, high = _random_crop_box(whole, view.crop, uniforms)
        if turned is None:
            spare = min(wide / width, high / height) / _JPEG_OVERSAMPLING
            part = next(eighths for eighths in (8, 4, 2, 1) if spare >= eighths or eighths == 1)
            image.draft(None, (image.width // part, image.height // part))
            turned = _upright(image)
        part = round(whole[0] / turned.width)
        edges = (left, top, left + wide, top + high)
        pixels = to_eight_bits(turned.crop(edges) if part == 1 else turned, view.colors)
        box = None if part == 1 else tuple(edge / part for edge in edges)
        return _to_array(pixels.resize((width, height), Image.Resampling.BILINEAR, box))


def check_decodable(path: str, colors: Colors) -> None:
    """Raise what `decode` and `decode_crop` would raise for a file, at a quarter of the cost for a JPEG.

    The whole file is read. A JPEG is decoded at an eighth of its size, which reads every bit but saves the arithmetic.
    """
    with open_image(path) as image:
        check_bands(image, colors)
        image.draft(None, (1, 1))
        to_eight_bits(_upright(image), colors)


def _upright(image: Any) -> Any:
    """Return a loaded image, rotated and flipped as its orientation says."""
    image.load()
    orientation = _orientation(image)
    if orientation == 1:
        return image
    from PIL.Image import Transpose

    methods = (
        *(Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM),
        *(Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90),
    )
    return image.transpose(methods[orientation - 2])


def _orientation(image: Any) -> int:
    """Return the orientation in an image's EXIF or XMP, 1 (upright) if there is none.

    Pillow turns TIFF images while it loads them, and takes the orientation away.
    """
    if image.format == "TIFF" or _ORIENTATION_SOURCES.isdisjoint(image.info):
        return 1
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:
        # An image without readable EXIF is an image still
        note(f"its EXIF cannot be read ({error})")
        return 1
    return found if found in range(1, 9) else 1


def _to_array(image: Any) -> _Pixels:
    """Return an L or RGB image as (C, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _random_crop_box(size: tuple[int, int], crop: CropBounds, uniforms: Sequence[float]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a random crop of an image of `size` (width, height), in pixels.

    The area is uniform within `scale`, the aspect ratio log-uniform within the part of `ratio` that fits, and all
    positions are equally likely. An area that fits with no such ratio becomes the largest that does (Szegedy et al.
    2014, arXiv 1409.4842, section 6). torchvision instead redraws what does not fit, up to ten times, which makes large
    crops rarer.
    """
    width, height = size
    # The ratio that allows the largest crop
    best = min(max(width / height, crop.ratio[0]), crop.ratio[1])
    largest = min(width * width / best, height * height * best)
    area = min(_interpolate(*crop.scale, uniforms[0]) * width * height, largest)
    low = max(math.log(crop.ratio[0]), math.log(area / height**2))
    high = min(math.log(crop.ratio[1]), math.log(width**2 / area))
    ratio = math.exp(_interpolate(low, max(low, high), uniforms[1]))
    wide = min(max(round(math.sqrt(area * ratio)), 1), width)
    tall = min(max(round(math.sqrt(area / ratio)), 1), height)
    return int(uniforms[2] * (width - wide + 1)), int(uniforms[3] * (height - tall + 1)), wide, tall


def _interpolate(low: float, high: float, uniform: float) -> float:
    """Return `low + (high - low) * uniform`."""
    return low + (high - low) * uniform
