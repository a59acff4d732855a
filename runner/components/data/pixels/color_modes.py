"""Turn a Pillow image of any mode into 8-bit gray or RGB."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runner.components.data.pixels.decoder_messages import note

# Bits of which the upper eight are kept, or the values that become 0 and 255
Depth = int | tuple[float, float]
Alpha = Literal["drop", "black", "white"]
ExtraBands = Literal["error", "drop"]

# TIFF tags
_PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 262, 277, 338
_MIN_IS_WHITE = 0
# Samples per pixel of each photometric interpretation; others have three
_GRAY_OR_PALETTE, _CMYK = (0, 1, 3), 5
# Values of ExtraSamples that stand for transparency
_TRANSPARENCY = (1, 2)
# Key in Image.info; Pillow copies it to images that are made from this one
_INVERTED = "runner_min_is_white"
# Formats whose further frames are not further images: previews and layers
_ONE_FRAME = ("MPO", "PSD")
# Modes with premultiplied transparency, which Pillow converts to no other
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


class DeepImageError(Exception):
    """An image has more than 8 bits per pixel, and the range of the training images is not known yet.

    Attributes:
        facts: What is known of them, from a cache.
    """

    def __init__(self, facts: dict[str, Any] | None = None) -> None:
        super().__init__("the range of the training images is not known")
        self.facts = facts


@dataclass(frozen=True)
class Colors:
    """How pixels of any mode become 8-bit gray or RGB.

    Attributes:
        channels: 3 for RGB, 1 for gray.
        depth: How values of more than 8 bits are scaled: `auto` before the range of the training images is known, None
            if none of them has more than 8 bits.
        alpha: The background under transparent pixels, or `drop` to use the color that they have in the file.
        extra_bands: Whether bands that are neither color nor transparency are an error or dropped.
    """

    channels: int = 3
    depth: Depth | Literal["auto"] | None = None
    alpha: Alpha = "drop"
    extra_bands: ExtraBands = "error"


def is_deep(mode: str) -> bool:
    """Return True if pixels of this mode have more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def check_bands(image: Any, colors: Colors) -> None:
    """Look for what Pillow drops without a word, in an image that was opened and not loaded.

    Raises:
        ValueError: A band would be lost, and `colors.extra_bands` does not say that it may.
    """
    if image.format == "JPEG":
        # Nothing of that, in the most frequent format
        return
    if image.format == "TIFF":
        tags = image.tag_v2
        extra = _extra_bands(tags)
        if extra and colors.extra_bands == "error":
            raise ValueError(f"has {extra} more than color and transparency; to drop: data.extra_bands=drop")
        if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE and is_deep(image.mode):
            # Pillow inverts such images of up to 8 bits only
            image.info[_INVERTED] = True
    if not is_deep(image.mode) and any(";16" in _raw_mode(tile) for tile in getattr(image, "tile", ())):
        note("16-bit color keeps its upper 8 bits")
    if image.format not in _ONE_FRAME and getattr(image, "is_animated", False):
        note("only the first frame or page is used")


def _extra_bands(tags: Any) -> str:
    """Return in words which bands of a TIFF are neither color nor transparency."""
    samples, photometric = tags.get(_SAMPLES, 1), tags.get(_PHOTOMETRIC)
    color = 1 if photometric in _GRAY_OR_PALETTE else 4 if photometric == _CMYK else 3
    declared = tags.get(_EXTRA_SAMPLES, ())
    alpha = any(kind in _TRANSPARENCY for kind in declared)
    count = samples - color - alpha
    return "" if count <= 0 else f"{samples} bands, {count}"


def _raw_mode(tile: Any) -> str:
    """Return the layout of the pixels in a file, for one of Pillow's tiles."""
    layout = tile[3] if len(tile) > 3 else ""
    layout = layout[0] if isinstance(layout, tuple) and layout else layout
    return layout if isinstance(layout, str) else ""


def to_eight_bits(image: Any, colors: Colors) -> Any:
    """Return a loaded image as L or RGB.

    Gray is the luma of ITU-R 601-2 (0.299 R + 0.587 G + 0.114 B), as in Pillow and torchvision.

    Raises:
        ValueError: The pixels have more than 8 bits and `colors.depth` is None.
        DeepImageError: They have, and it is `auto`.
    """
    mode = "L" if colors.channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    if is_deep(image.mode):
        image = _scaled(image, colors.depth)
    elif image.has_transparency_data:
        image = _opaque(image, colors.alpha)
    return image if image.mode == mode else image.convert(mode)


def _opaque(image: Any, alpha: Alpha) -> Any:
    """Return an image without transparency; note if pixels lose it."""
    from PIL import Image

    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba
    if alpha == "drop":
        note("transparent pixels keep the color under them (data.alpha=white or black: a background)")
        return rgba
    return Image.alpha_composite(Image.new("RGBA", rgba.size, alpha), rgba)


def _scaled(image: Any, depth: Depth | Literal["auto"] | None) -> Any:
    """Return an image of more than 8 bits as L."""
    from PIL import Image

    if depth == "auto":
        raise DeepImageError
    if depth is None:
        raise ValueError("has more than 8 bits per pixel, which no training image has; set data.depth")
    values = np.asarray(image)
    # A table takes an eighth of the time
    bytes_ = _table(depth)[values] if values.dtype.kind == "u" else _to_bytes(values, depth)
    return Image.fromarray(255 - bytes_ if image.info.get(_INVERTED) else bytes_)


@cache
def _table(depth: Depth) -> NDArray[np.uint8]:
    """Return the byte for each of the 16-bit values."""
    return _to_bytes(np.arange(1 << 16), depth)


def _to_bytes(values: NDArray[Any], depth: Depth) -> NDArray[np.uint8]:
    """Return values as bytes: upper eight of `depth` bits, or a range that becomes 0..255, rounded; NaN becomes 0."""
    if isinstance(depth, int):
        scaled = np.floor(values.astype(np.float64) * 2.0 ** (8 - depth))
    else:
        low, high = depth
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.rint((values.astype(np.float64) - low) * 255 / (high - low))
    return np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).astype(np.uint8)
