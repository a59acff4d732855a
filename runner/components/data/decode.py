"""Image files to pixels, by a pool of threads; a file that cannot be decoded is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from runner.errors import DataError

Result = TypeVar("Result")

CHUNK = 64  # files that a thread takes at a time
ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"\xaeB\x60\x82"}  # first bytes of JPEG and PNG -> their last


@dataclass(frozen=True)
class Files:
    """A split that decodes its images each time they are asked for, with `workers` threads."""

    files: list[str]
    labels: Tensor
    size: tuple[int, int]
    workers: int

    def fetch(self, index: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) uint8 at `index` (B,) int64; raises DataError that names a broken file."""
        return read([self.files[i] for i in index.tolist()], self.size, self.workers)


def read(files: Sequence[str], size: tuple[int, int], workers: int) -> Tensor:
    """Return the images (N, 3, H, W) uint8 in `files`."""
    out = np.empty((len(files), 3, *size), np.uint8)

    def fill(place: int) -> None:
        out[place] = named(files[place], lambda path: decode(path, size))

    in_chunks(fill, len(files), workers)
    return torch.from_numpy(out)


def inspect(files: Sequence[str], workers: int) -> None:
    """Raise DataError for the first file that is no image or is cut off.

    Headers are read, and files whose end does not show that they are complete are decoded. What is damaged in its
    middle is found when it is decoded.
    """
    in_chunks(lambda place: named(files[place], complete), len(files), workers)


def in_chunks(work: Callable[[int], None], count: int, workers: int) -> None:
    """Call `work` for 0..count-1 on a pool of threads; the first exception, in this order, is raised."""

    def chunk(start: int) -> None:
        for place in range(start, min(start + step, count)):
            work(place)

    step = max(1, min(CHUNK, count // workers))
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(chunk, range(0, count, step)):
            pass


def named(path: str, work: Callable[[str], Result]) -> Result:
    """Return `work(path)`; whatever a decoder says about a damaged file becomes a DataError with the path."""
    try:
        return work(path)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        reason = str(error).replace(path, "it").replace("\n", " ") or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image ({reason})") from error


def decode(path: str, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image file as (3, H, W) uint8: upright (EXIF), scaled until it covers `size` and cropped at the centre.

    Grey, palette and CMYK become RGB, alpha is dropped, 16-bit grey keeps its upper byte, of an animation the first
    frame counts. Scaling is bilinear with antialiasing; a large JPEG is decoded at the smallest fraction that still has
    twice the size asked for.
    """
    from PIL import Image, ImageOps

    height, width = size
    with Image.open(path) as image:
        image.draft(None, (2 * max(size), 2 * max(size)))  # None keeps the mode
        upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
        colour = to_rgb(upright)
        if colour.size != (width, height):
            colour = ImageOps.fit(colour, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(colour).transpose(2, 0, 1)


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
    """Raise what Pillow raises if a file is no image or is cut off."""
    from PIL import Image

    with Image.open(path), Path(path).open("rb") as file:
        ending = ENDINGS.get(file.read(2))
        file.seek(-min(4, os.path.getsize(path)), os.SEEK_END)  # noqa: PTH202
        seen = file.read()
    if ending is None or not seen.endswith(ending):
        decode(path, (1, 1))
