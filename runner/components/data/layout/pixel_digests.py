"""Digests of the pixels of image files: which files show the same image, whatever their bytes, format or compression.

Pixels are compared as 8-bit RGB, upright, at full size; transparency counts, and 16-bit pixels are compared as such.
Decoding everything at full size would take longer than the start of a run. So a file first gets a sketch: width,
height, mean color, and a digest of its pixels, for a JPEG at an eighth of its size. Files that show the same image have
the same sketch, or, for a JPEG and another format, the same size and nearly the same mean color. Only such files are
decoded at full size. Sketches and digests are kept by the state of the file, as digests of bytes are.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.components.data.pixels.decoder_messages import Collected, routed
from runner.components.data.pixels.image_files import map_chunks
from runner.components.data.pixels.image_kinds import open_image
from runner.engine.file_digests import DIGEST_BYTES, cache_file, is_settled, read_rows, size_of, state_of, write_rows
from runner.engine.read_ahead import read_ahead
from runner.engine.world import cores
from runner.user_paths import full

_JPEG = ("JPEG", "MPO")
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, 5
# Bytes of a sketch or digest: 2 * 3 of the size, 1 of the kind of file, 3 of the mean color, 6 of the pixels
_KIND, _MEAN = 6, slice(7, 10)
_UNREADABLE = bytes(DIGEST_BYTES)
# Levels by which the mean color of an eighth may differ from that of the whole image
_TOLERANCE = 8
# Bytes. For smaller files decoders hold the GIL so often that a second thread slows them down
_SMALL_FILE = 16384


def pixel_digests(root: Path, files: Sequence[str]) -> list[bytes | None]:
    """Return equal digests for files that show the same image, None for one that shows none, or surely no other's."""
    kept = _Kept(root)
    what = f"comparing images of {root}"
    sketches = kept.each(files, _sketch, b"sketch", what)
    places = sorted(_candidates(sketches))
    digests = kept.each([files[place] for place in places], _whole, b"whole", what)
    kept.write()
    found: list[bytes | None] = [None] * len(files)
    for place, digest in zip(places, digests, strict=True):
        found[place] = None if digest == _UNREADABLE else digest
    return found


def _candidates(sketches: Sequence[bytes]) -> set[int]:
    """Return the positions of files that may show the same image as another."""
    equal: dict[bytes, list[int]] = {}
    for place, sketch in enumerate(sketches):
        if sketch != _UNREADABLE:
            equal.setdefault(sketch, []).append(place)
    found = {place for places in equal.values() if len(places) > 1 for place in places}
    # Size and mean color in steps of the tolerance -> sketches of lossless files
    lossless: dict[tuple[bytes, tuple[int, ...]], list[bytes]] = {}
    for sketch in equal:
        if not sketch[_KIND]:
            lossless.setdefault(_bucket(sketch), []).append(sketch)
    for sketch in equal if lossless else ():
        if sketch[_KIND]:
            size, color = _bucket(sketch)
            for step in itertools.product((-1, 0, 1), repeat=3):
                near = lossless.get((size, tuple(a + b for a, b in zip(color, step, strict=True))), [])
                found.update(place for other in near for place in (*equal[other], *equal[sketch]))
    return found


def _bucket(sketch: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return the size of an image, and its mean color in steps of the tolerance."""
    return sketch[:_KIND], tuple(level // _TOLERANCE for level in sketch[_MEAN])


def _sketch(path: str) -> bytes:
    """Return size, kind, mean color and a digest of the pixels, which are an eighth of those of a JPEG."""
    return _look(path, eighth=True)


def _whole(path: str) -> bytes:
    """Return the digest of all pixels."""
    return _look(path, eighth=False)


def _look(path: str, *, eighth: bool) -> bytes:
    """Return the sketch of an image, or the digest of all pixels; that of no image if it cannot be decoded."""
    from PIL import ImageOps

    try:
        # The messages of the decoder come again from whoever reads the file
        with Collected(), open_image(path) as image:
            is_jpeg = image.format in _JPEG
            sideways = "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION, 1) >= _SIDEWAYS
            size = image.size[::-1] if sideways else image.size
            if is_jpeg and eighth:
                image.draft(None, (1, 1))
            pixels = _comparable(ImageOps.exif_transpose(image) if "exif" in image.info else image)
    except Exception:
        # Whoever reads the file reports it
        return _UNREADABLE
    if not eighth:
        content = repr((size, pixels.shape)).encode() + pixels.tobytes()
        return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
    mean = [0, 0, 0] if pixels.dtype != np.uint8 else _mean_color(pixels[..., :3].reshape(-1, 3))
    content = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=6).digest()
    sides = b"".join(min(side, 2**24 - 1).to_bytes(3) for side in size)
    return sides + bytes([is_jpeg, *mean]) + content


def _mean_color(pixels: NDArray[np.uint8]) -> list[int]:
    """Return the mean of pixels (N, 3)."""
    # np.mean takes three times as long for small images
    mean: list[int] = (np.add.reduce(pixels, 0, dtype=np.int64) // len(pixels)).tolist()
    return mean


def _comparable(image: Any) -> NDArray[Any]:
    """Return pixels (H, W, 3) uint8, (H, W, 4) with transparent ones, or (H, W, 1) of more than 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)[..., None]
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (image.mode == "P" and "transparency" in image.info):
        pixels = np.asarray(image.convert("RGBA"))
        return pixels if pixels[..., 3].min() < 255 else pixels[..., :3]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


class _Kept:
    """Sketches and digests of the files below a folder, kept in the user's cache by the state of each file."""

    def __init__(self, root: Path) -> None:
        from PIL import __version__

        self._path = cache_file(root, "pixels")
        self._version = __version__.encode()
        self._now = time.time_ns()
        self._known = read_rows(self._path)
        self._kept: dict[bytes, bytes] = {}

    def each(self, files: Sequence[str], look: Callable[[str], bytes], kind: bytes, what: str) -> list[bytes]:
        """Return `look(file)` for each file, in order, from the cache where the file is as it was."""
        states = [self._state(file, kind) for file in files]
        unknown = [place for place, (key, _) in enumerate(states) if key is not None and key not in self._known]
        fresh: dict[int, bytes] = {}

        def chunk(start: int, stop: int) -> list[bytes]:
            read_ahead(files[place] for place in unknown[start:stop])
            with routed:
                return [look(files[place]) for place in unknown[start:stop]]

        if unknown:
            looked = map_chunks(chunk, len(unknown), _threads([files[place] for place in unknown[:16]]), what)
            fresh = dict(zip(unknown, itertools.chain.from_iterable(looked), strict=True))
        found = [
            fresh[place] if place in fresh else _UNREADABLE if key is None else self._known[key]
            for place, (key, _) in enumerate(states)
        ]
        self._kept |= {key: each for each, (key, settled) in zip(found, states, strict=True) if key and settled}
        return found

    def write(self) -> None:
        """Write what is new to the cache."""
        if not self._kept.keys() <= self._known.keys():
            write_rows(self._path, self._known, self._kept)

    def _state(self, file: str, kind: bytes) -> tuple[bytes | None, bool]:
        """Return the key of a file, None if it is no regular file, and whether every change will change the key."""
        try:
            status = os.stat(full(file))  # noqa: PTH116  (a Path per file takes ten times as long)
        except (OSError, ValueError):
            return None, False
        if not stat.S_ISREG(status.st_mode):
            return None, False
        key = hashlib.blake2b(self._version + kind + state_of(file, status), digest_size=DIGEST_BYTES).digest()
        return key, is_settled(status, self._now)


def _threads(some: Sequence[str]) -> int:
    """Return a thread per core, or one for small files."""
    sizes = [size for file in some if (size := size_of(file))]
    return cores() if sum(sizes) > _SMALL_FILE * len(sizes) else 1
