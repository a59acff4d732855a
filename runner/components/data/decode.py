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

from runner.engine.saving.storage import printable
from runner.errors import DataError

_Result = TypeVar("_Result")
# (3, H, W)
_Pixels = NDArray[np.uint8]

# Formats that Pillow may detect, whatever the file's name: PostScript would start Ghostscript
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF")
# A JPEG is decoded at the smallest eighth of its size that has this many times the requested side
_JPEG_OVERSAMPLING = 2
# EXIF tag of the orientation; values 5 to 8 are rotated by 90 degrees
_EXIF_ORIENTATION = 0x0112
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


def call_decoder(path: str, work: Callable[[str], _Result]) -> _Result:
    """Return `work(path)`; raise DataError with the path for whatever a decoder raises."""
    try:
        # Opening a pipe would block
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise ValueError("not a regular file")
        return work(path)
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        problem = f"cannot be read as an image ({_error_text(error, path)})"
        raise DataError(f"{printable(Path(path))}: {problem}") from error


def _error_text(error: Exception, path: str) -> str:
    """Return a decoder's message on one line, without the path."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    message = message.replace(repr(path), "it").replace(path, "it")
    return " ".join(message.split()) or type(error).__name__


def decode(path: str, view: View) -> _Pixels:
    """Return an image file as (3, H, W) uint8: upright (EXIF), scaled to cover the size and center-cropped.

    Gray, palette and CMYK images become RGB, alpha is dropped, 16-bit gray keeps its upper byte, and animations keep
    their first frame. Scaling is bilinear with antialiasing. A large JPEG is decoded at the smallest fraction that
    still has twice the requested size. With `view.center` below 1 only that central share of both sides is kept.
    """
    from PIL import Image, ImageOps

    height, width = view.size
    with Image.open(path, formats=_FORMATS) as image:
        enough = int(_JPEG_OVERSAMPLING * max(view.size) / view.center)
        # None keeps the color mode
        image.draft(None, (enough, enough))
        rgb = _to_rgb(_apply_exif_orientation(image))
        if rgb.size != (width, height) or view.center < 1:
            # Share cut from each side
            bleed = (1 - view.center) / 2
            rgb = ImageOps.fit(rgb, (width, height), Image.Resampling.BILINEAR, bleed)
        return np.asarray(rgb).transpose(2, 0, 1)


def decode_crop(path: str, view: View, uniforms: Sequence[float]) -> _Pixels:
    """Return a random crop of an image file, scaled to (3, H, W) uint8; `uniforms` are four numbers in [0, 1).

    Equals torchvision's `resized_crop` (bilinear, antialias) of the same window, pixel for pixel. A JPEG whose window
    is more than four times the requested size is decoded at a fraction of its size, and is close to it.
    """
    from PIL import Image

    assert view.crop is not None
    height, width = view.size
    with Image.open(path, formats=_FORMATS) as image:
        sideways = "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
        whole = image.size[::-1] if sideways else image.size
        left, top, wide, high = _random_crop_box(whole, view.crop, uniforms)
        spare = min(wide / width, high / height) / _JPEG_OVERSAMPLING
        part = next(eighths for eighths in (8, 4, 2, 1) if spare >= eighths or eighths == 1)
        image.draft(None, (image.width // part, image.height // part))
        turned = _apply_exif_orientation(image)
        # Only JPEGs are decoded at a fraction of their size
        part = round(whole[0] / turned.width)
        edges = (left, top, left + wide, top + high)
        rgb = _to_rgb(turned.crop(edges) if part == 1 else turned)
        box = None if part == 1 else tuple(edge / part for edge in edges)
        return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR, box)).transpose(2, 0, 1)


def _apply_exif_orientation(image: Any) -> Any:
    """Return a Pillow image rotated as its EXIF orientation says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def _to_rgb(image: Any) -> Any:
    """Return a Pillow image of any mode as RGB."""
    from PIL import Image

    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no range that maps to 0..255")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        # Pillow warns about a direct conversion to RGB
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def check_decodable(path: str) -> None:
    """Raise what `decode` and `decode_crop` would raise for a file, at a quarter of the cost for a JPEG.

    The whole file is read. A JPEG is decoded at an eighth of its size, which reads every bit but saves the arithmetic.
    """
    from PIL import Image

    with Image.open(path, formats=_FORMATS) as image:
        image.draft(None, (1, 1))
        image.load()
        _to_rgb(_apply_exif_orientation(image))


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
