"""Prepare the images of a split: decode them into a cache or into memory, or validate them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.components.data.decode import View
from runner.components.data.folder_listing import relative_paths
from runner.components.data.image_cache import Manifest, load_or_build, print_note
from runner.components.data.image_files import Unreadable, decode_in_chunks
from runner.components.data.validate_images import find_unreadable
from runner.engine.saving import storage
from runner.errors import DataError, StorageError

# Version of the cache format and of `decode`: raise it when either changes
_FORMAT = 1


@dataclass(frozen=True)
class ReadSettings:
    """How the files below `root` are read: view, threads, whether to skip broken files, and the cache folder.

    `processes` load the images in training; 0 means this process.
    """

    root: Path
    view: View
    threads: int
    processes: int
    skip: bool
    caches: Path | None


def load_images(files: Sequence[str], reading: ReadSettings) -> tuple[Tensor, Unreadable]:
    """Return all readable images (N, 3, H, W), memory-mapped from the cache, and why others are unreadable.

    Without a cache, or if it cannot be written, images are decoded into memory. Raises DataError for the first
    unreadable file unless such files are skipped.
    """
    if reading.caches is None:
        return _decode_to_memory(files, reading)
    place = reading.caches / _cache_key(files, reading, "pixels")
    shape = (3, *reading.view.size)
    try:
        manifest = load_or_build(
            place, lambda: _decode_to_file(files, reading, place / "pixels"), len(files) * int(np.prod(shape))
        )
    except StorageError as error:
        print_note(f"{error}; the images are decoded into memory")
        return _decode_to_memory(files, reading)
    return _memory_map(place / "pixels", (manifest.count, *shape)), _raise_unless_skipped(files, reading, manifest.bad)


def _memory_map(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Return a file as a tensor whose pages are read on use; writing to it does not change the file."""
    if shape[0] == 0:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.from_file(str(path), shared=False, size=int(np.prod(shape)), dtype=torch.uint8).view(shape)


def validate_files(files: Sequence[str], reading: ReadSettings) -> Unreadable:
    """Return why files cannot be decoded, from a cache if they were validated before.

    Raises DataError for the first one unless such files are skipped.
    """
    if reading.caches is None:
        return _validate(files, reading).bad
    place = reading.caches / _cache_key(files, reading, "looks")
    try:
        return _raise_unless_skipped(files, reading, load_or_build(place, lambda: _validate(files, reading), 0).bad)
    except StorageError as error:
        print_note(f"{error}; the images are validated at every start")
        return _validate(files, reading).bad


def _raise_unless_skipped(files: Sequence[str], reading: ReadSettings, bad: Unreadable) -> Unreadable:
    """Return the unreadable files if they are skipped; else raise DataError for the first."""
    if bad and not reading.skip:
        raise DataError(first_unreadable(files, bad))
    return bad


def first_unreadable(files: Sequence[str], bad: Unreadable) -> str:
    """Return the first unreadable file and the reason."""
    return f"{storage.printable(Path(files[min(bad)]))}: {bad[min(bad)]}"


def _decode_to_memory(files: Sequence[str], reading: ReadSettings) -> tuple[Tensor, Unreadable]:
    """Return the images decoded into memory."""
    bad: Unreadable = {}
    out = np.empty((len(files), 3, *reading.view.size), np.uint8)
    done = 0
    for chunk in _decode_all(files, reading, bad):
        out[done : done + len(chunk)] = chunk
        done += len(chunk)
    return torch.from_numpy(out[:done]), bad


def _decode_to_file(files: Sequence[str], reading: ReadSettings, path: Path) -> Manifest:
    """Decode all images into a file."""
    bad: Unreadable = {}
    digest, count = hashlib.sha256(), 0
    with storage.atomic_replacement(path) as file:
        for chunk in _decode_all(files, reading, bad):
            storage.write_all(file, chunk.reshape(-1).data, digest)
            count += len(chunk)
    return Manifest(count, digest.hexdigest(), bad)


def _decode_all(files: Sequence[str], reading: ReadSettings, bad: Unreadable) -> Iterator[NDArray[np.uint8]]:
    """Yield all images in chunks, with a progress bar."""
    noted = bad if reading.skip else None
    return decode_in_chunks(files, reading.view, reading.threads, noted, f"decoding {reading.root}")


def _validate(files: Sequence[str], reading: ReadSettings) -> Manifest:
    """Validate the files without keeping pixels."""
    what = f"validating {reading.root}"
    bad = find_unreadable(files, reading.threads, reading.processes, what, keep=reading.skip)
    return Manifest(len(files) - len(bad), "", bad)


def _cache_key(files: Sequence[str], reading: ReadSettings, kind: str) -> str:
    """Return the name of the cache: 32 hex digits over the files, in order, and for pixels over the view."""
    from PIL import __version__, features

    codecs = [features.version(name) for name in ("libjpeg_turbo", "jpg", "webp", "libtiff")]
    digest = hashlib.blake2b(digest_size=16)
    seen = () if kind == "looks" else (reading.view.size, reading.view.center)
    digest.update(repr((_FORMAT, kind, *seen, __version__, codecs)).encode())
    for file, name in zip(files, relative_paths(reading.root, files), strict=True):
        try:
            # A Path per file takes ten times as long
            status = os.stat(file)  # noqa: PTH116
            state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError:
            state = "cannot be looked at"
        digest.update(os.fsencode(f"\0{name}\0{state}"))
    return digest.hexdigest()
