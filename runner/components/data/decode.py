"""One image file to pixels; a file that cannot be decoded is named."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runner.components.data.window import Crop, window
from runner.engine.saving.storage import shown
from runner.errors import DataError

Result = TypeVar("Result")
Pixels = NDArray[np.uint8]  # (3, H, W)

# What Pillow may take a file for, whatever it is called: PostScript would start Ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF")
SPARE = 2  # a JPEG is decoded at the smallest eighth of its size that has this many times the pixels asked for
ORIENTATION = 0x0112  # EXIF's number for it; 5 to 8 stand on their side


@dataclass(frozen=True)
class View:
    """What becomes of each image: its size, the share of it that is looked at and, in training, a random window."""

    size: tuple[int, int]  # H, W
    centre: float = 1.0
    crop: Crop | None = None


def named(path: str, work: Callable[[str], Result]) -> Result:
    """Return `work(path)`; whatever a decoder says about a damaged file becomes a DataError with the path."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (a pipe would be waited for)
            raise ValueError("not a regular file")
        return work(path)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        words = f"cannot be read as an image ({reason(error, path)})"
        raise DataError(f"{shown(Path(path))}: {words}") from error


def reason(error: Exception, path: str) -> str:
    """Return what a decoder says on one line, without the path."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = words.replace(repr(path), "it").replace(path, "it")
    return " ".join(words.split()) or type(error).__name__


def decode(path: str, view: View) -> Pixels:
    """Return an image file as (3, H, W) uint8: upright (EXIF), scaled until it covers the size, cropped at the centre.

    Grey, palette and CMYK become RGB, alpha is dropped, 16-bit grey keeps its upper byte, of an animation the first
    frame counts. Scaling is bilinear with antialiasing; a large JPEG is decoded at the smallest fraction that still has
    twice the size asked for. With `view.centre` below 1 only that share of both sides, at the centre, is looked at.
    """
    from PIL import Image, ImageOps

    height, width = view.size
    with Image.open(path, formats=FORMATS) as image:
        enough = int(SPARE * max(view.size) / view.centre)
        image.draft(None, (enough, enough))  # None keeps the mode
        colour = to_rgb(upright(image))
        if colour.size != (width, height) or view.centre < 1:
            bleed = (1 - view.centre) / 2  # on each side
            colour = ImageOps.fit(colour, (width, height), Image.Resampling.BILINEAR, bleed)
        return np.asarray(colour).transpose(2, 0, 1)


def decode_window(path: str, view: View, uniforms: Sequence[float]) -> Pixels:
    """Return a random window of an image file, scaled to (3, H, W) uint8; `uniforms` are four numbers in [0, 1).

    Pixel for pixel torchvision's `resized_crop` (bilinear, antialias) of the same window; of a JPEG whose window is
    more than four times as large as the size asked for, close to it: that one is decoded at a fraction of its size.
    """
    from PIL import Image

    assert view.crop is not None
    height, width = view.size
    with Image.open(path, formats=FORMATS) as image:
        lying = "exif" in image.info and image.getexif().get(ORIENTATION, 1) >= 5
        whole = image.size[::-1] if lying else image.size
        left, top, wide, high = window(whole, view.crop, uniforms)
        spare = min(wide / width, high / height) / SPARE
        part = next(eighths for eighths in (8, 4, 2, 1) if spare >= eighths or eighths == 1)
        image.draft(None, (image.width // part, image.height // part))
        turned = upright(image)
        part = round(whole[0] / turned.width)  # files other than JPEG come whole
        edges = (left, top, left + wide, top + high)
        colour = to_rgb(turned.crop(edges) if part == 1 else turned)
        box = None if part == 1 else tuple(edge / part for edge in edges)
        return np.asarray(colour.resize((width, height), Image.Resampling.BILINEAR, box)).transpose(2, 0, 1)


def upright(image: Any) -> Any:
    """Return a Pillow image turned as its EXIF orientation says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def to_rgb(image: Any) -> Any:
    """Return a Pillow image of any mode as RGB."""
    from PIL import Image

    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no range that maps to 0..255")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about the direct way
    return image if image.mode == "RGB" else image.convert("RGB")


def complete(path: str) -> None:
    """Raise what `decode` and `decode_window` would raise for a file, at a quarter of the cost where it is a JPEG.

    All of it is read: a JPEG at an eighth of its size, which decodes every bit of it and spares the arithmetic.
    """
    from PIL import Image

    with Image.open(path, formats=FORMATS) as image:
        image.draft(None, (1, 1))
        image.load()
        to_rgb(upright(image))
