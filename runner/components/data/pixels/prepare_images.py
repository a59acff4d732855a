"""Prepare the images of a split: decode them into a cache or into memory, or validate them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.pixels.color_modes import DeepImageError
from runner.components.data.pixels.decode import View
from runner.components.data.pixels.decoder_messages import Findings, Unreadable
from runner.components.data.pixels.image_cache import Manifest, load_or_build, print_note
from runner.components.data.pixels.image_files import decode_in_chunks
from runner.components.data.pixels.scan_images import Scan, scan_images
from runner.components.data.pixels.validate_images import find_unreadable
from runner.engine.saving import storage
from runner.errors import DataError, StorageError
from runner.user_paths import full

# Version of the cache format and of `decode`: raise it when either changes
_FORMAT = 2


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


def load_images(files: Sequence[str], reading: ReadSettings) -> tuple[Tensor, Findings]:
    """Return all readable images (N, C, H, W), memory-mapped from the cache, and what decoders found.

    Without a cache, or if it cannot be written, images are decoded into memory. Raises DataError for the first
    unreadable file unless such files are skipped.
    """
    if reading.caches is None:
        return _decode_to_memory(files, reading)
    view = reading.view
    place = reading.caches / cache_key(files, reading.root, ("pixels", view.size, view.center, view.fit, view.colors))
    shape = view.shape
    try:
        make = partial(_decode_to_file, files, reading, place / "pixels")
        manifest = _load_or_build(place, make, files, reading, len(files) * int(np.prod(shape)))
    except StorageError as error:
        print_note(f"{error}; the images are decoded into memory")
        return _decode_to_memory(files, reading)
    return _memory_map(place / "pixels", (manifest.count, *shape)), _raise_unless_skipped(
        files, reading, manifest.findings
    )


def _memory_map(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Return a file as a tensor whose pages are read on use; writing to it does not change the file."""
    if shape[0] == 0:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.from_file(full(path), shared=False, size=int(np.prod(shape)), dtype=torch.uint8).view(shape)


def validate_files(files: Sequence[str], reading: ReadSettings) -> Findings:
    """Return what decoders find in the files, from a cache if they were validated before.

    Raises DataError for the first one unless such files are skipped.
    """
    if reading.caches is None:
        return _validate(files, reading).findings
    place = reading.caches / cache_key(files, reading.root, ("looks", reading.view.colors))
    try:
        found = _load_or_build(place, partial(_validate, files, reading), files, reading, 0).findings
        return _raise_unless_skipped(files, reading, found)
    except StorageError as error:
        print_note(f"{error}; the images are validated at every start")
        return _validate(files, reading).findings


def _load_or_build(
    place: Path, make: Callable[[], Manifest], files: Sequence[str], reading: ReadSettings, needed: int
) -> Manifest:
    """Return the manifest of a cache, built by `make` if there is none.

    Raises:
        DeepImageError: The range of the images must be known first; from now on the cache knows it.
    """

    def make_or_scan() -> Manifest:
        try:
            return make()
        except DeepImageError:
            return Manifest(0, "", Findings(), vars(scan_range(files, reading)))

    manifest = load_or_build(place, make_or_scan, needed)
    if manifest.facts:
        raise DeepImageError(manifest.facts)
    return manifest


def scan_range(files: Sequence[str], reading: ReadSettings) -> Scan:
    """Return the range of the images that have more than 8 bits."""
    return scan_images(files, reading.threads, f"reading the range of {reading.root}", want_gray=False)


def _raise_unless_skipped(files: Sequence[str], reading: ReadSettings, findings: Findings) -> Findings:
    """Return the findings if unreadable files are skipped; else raise DataError for the first."""
    if findings.bad and not reading.skip:
        raise DataError(first_unreadable(files, findings.bad))
    return findings


def first_unreadable(files: Sequence[str], bad: Unreadable) -> str:
    """Return the first unreadable file and the reason."""
    return f"{storage.printable(Path(files[min(bad)]))}: {bad[min(bad)]}"


def _decode_to_memory(files: Sequence[str], reading: ReadSettings) -> tuple[Tensor, Findings]:
    """Return the images decoded into memory."""
    findings = Findings()
    out = np.empty((len(files), *reading.view.shape), np.uint8)
    done = 0
    for chunk in _decode_all(files, reading, findings):
        out[done : done + len(chunk)] = chunk
        done += len(chunk)
    return torch.from_numpy(out[:done]), findings


def _decode_to_file(files: Sequence[str], reading: ReadSettings, path: Path) -> Manifest:
    """Decode all images into a file."""
    findings = Findings()
    digest, count = hashlib.sha256(), 0
    with storage.atomic_replacement(path) as file:
        for chunk in _decode_all(files, reading, findings):
            storage.write_all(file, chunk.reshape(-1).data, digest)
            count += len(chunk)
    return Manifest(count, digest.hexdigest(), findings)


def _decode_all(files: Sequence[str], reading: ReadSettings, findings: Findings) -> Iterator[NDArray[np.uint8]]:
    """Yield all images in chunks, with a progress bar."""
    what = f"decoding {reading.root}"
    return decode_in_chunks(files, reading.view, reading.threads, findings, what, keep=reading.skip)


def _validate(files: Sequence[str], reading: ReadSettings) -> Manifest:
    """Validate the files without keeping pixels."""
    what = f"validating {reading.root}"
    found = find_unreadable(
        files, reading.threads, reading.processes, what, keep=reading.skip, colors=reading.view.colors
    )
    return Manifest(len(files) - len(found.bad), "", found)


def cache_key(files: Sequence[str], root: Path, use: tuple[Any, ...]) -> str:
    """Return the name of a cache: 32 hex digits over the files, in order, and over what is kept of them."""
    from PIL import __version__, features

    codecs = [features.version(name) for name in ("libjpeg_turbo", "jpg", "webp", "libtiff", "avif", "jpg_2000")]
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((_FORMAT, *use, __version__, codecs)).encode())
    for file, name in zip(files, relative_paths(root, files), strict=True):
        try:
            # A Path per file takes ten times as long
            status = os.stat(full(file))  # noqa: PTH116
            state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError:
            state = "cannot be looked at"
        digest.update(os.fsencode(f"\0{name}\0{state}"))
    return digest.hexdigest()
