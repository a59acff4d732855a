"""Facts about the training images that decide how all images are decoded: are all gray, and which range they use.

They are read from the training split only, so that a file of another split changes no pixel of others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from runner.components.data.pixels.color_modes import is_deep
from runner.components.data.pixels.decode import call_decoder
from runner.components.data.pixels.decoder_messages import routed
from runner.components.data.pixels.image_files import map_chunks
from runner.components.data.pixels.image_kinds import first_bytes, open_image
from runner.engine.read_ahead import read_ahead
from runner.errors import DataError

# First bytes of files that never have more than 8 bits per pixel
_NEVER_DEEP = (b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
_PNG = b"\x89PNG\r\n\x1a\n"
# Color types of PNG
_PNG_GRAY, _PNG_PALETTE, _PNG_GRAY_ALPHA = 0, 3, 4
_GRAY_MODES = ("1", "L", "LA", "La")


@dataclass
class Scan:
    """Facts about some images: whether all are gray, how many have more than 8 bits, and their smallest and largest."""

    gray: bool = True
    deep: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def merge(self, other: Scan) -> None:
        """Add the facts about more images."""
        self.gray, self.deep = self.gray and other.gray, self.deep + other.deep
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


def scan_images(files: Sequence[str], threads: int, what: str, *, want_gray: bool) -> Scan:
    """Return the facts about some images; unreadable ones are left to whoever decodes them.

    `what` labels the progress bar. Without `want_gray` fewer files are opened, and `gray` means nothing.
    """

    def chunk(start: int, stop: int) -> Scan:
        found = Scan()
        read_ahead(files[start:stop])
        with routed:
            for file in files[start:stop]:
                found.merge(_facts(file, want_gray))
        return found

    whole = Scan()
    for part in map_chunks(chunk, len(files), threads, what):
        whole.merge(part)
    return whole


def _facts(path: str, want_gray: bool) -> Scan:
    """Return the facts about one image, from its first bytes if they tell."""
    head = first_bytes(path)
    if head.startswith(_NEVER_DEEP) and not want_gray:
        return Scan()
    if (
        head.startswith(_PNG)
        and len(head) > 25
        and head[25] != _PNG_PALETTE
        and (head[24], head[25]) != (16, _PNG_GRAY)
    ):
        return Scan(gray=head[25] in (_PNG_GRAY, _PNG_GRAY_ALPHA))
    with contextlib.suppress(DataError):
        return call_decoder(path, partial(_facts_by_pillow, want_gray=want_gray))[0]
    return Scan()


def _facts_by_pillow(path: str, want_gray: bool) -> Scan:
    """Return the facts about one image; only deep images and palettes are decoded."""
    with open_image(path) as image:
        if is_deep(image.mode):
            values = np.asarray(image)
            finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            return Scan(True, 1, float(finite.min()), float(finite.max())) if finite.size else Scan(True, 1)
        if want_gray and image.mode in ("P", "PA"):
            palette = np.asarray(image.getpalette("RGB") or []).reshape(-1, 3)
            return Scan(gray=bool((palette == palette[:, :1]).all()))
        return Scan(gray=image.mode in _GRAY_MODES)
