"""The images of a split, ready to train on: decoded into a cache or into memory, or looked through."""

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

from runner.components.data.cache import Manifest, kept, say
from runner.components.data.decode import View
from runner.components.data.files import Bad, decoded
from runner.components.data.layout import below
from runner.components.data.looking import broken
from runner.engine.saving import storage
from runner.errors import DataError, StorageError

FORMAT = 1  # of what is kept and of what `decode` does: a change of either is another number


@dataclass(frozen=True)
class Reading:
    """How the files below `root` are read: seen how, by how many threads, broken ones skipped or not, kept where.

    `processes` is how many load the images in training, 0 where it is this one.
    """

    root: Path
    view: View
    threads: int
    processes: int
    skip: bool
    caches: Path | None


def images(files: Sequence[str], reading: Reading) -> tuple[Tensor, Bad]:
    """Return all images (N, 3, H, W) that can be read, mapped from the cache, and why others cannot.

    Without a cache, or where it takes no files, they are decoded into memory. Raises DataError for the first file that
    cannot be read, unless such are skipped.
    """
    if reading.caches is None:
        return in_memory(files, reading)
    place = reading.caches / key(files, reading, "pixels")
    shape = (3, *reading.view.size)
    try:
        manifest = kept(place, lambda: store(files, reading, place / "pixels"), len(files) * int(np.prod(shape)))
    except StorageError as error:
        say(f"{error}; the images are decoded into memory")
        return in_memory(files, reading)
    return mapped(place / "pixels", (manifest.count, *shape)), refused(files, reading, manifest.bad)


def mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Return a file as a tensor whose pages are read when they are used; writing to it does not change the file."""
    if shape[0] == 0:
        return torch.empty(shape, dtype=torch.uint8)
    return torch.from_file(str(path), shared=False, size=int(np.prod(shape)), dtype=torch.uint8).view(shape)


def looked_through(files: Sequence[str], reading: Reading) -> Bad:
    """Return why files cannot be decoded, from a cache if they have been looked through before.

    Raises DataError for the first, unless such are skipped.
    """
    if reading.caches is None:
        return look(files, reading).bad
    place = reading.caches / key(files, reading, "looks")
    try:
        return refused(files, reading, kept(place, lambda: look(files, reading), 0).bad)
    except StorageError as error:
        say(f"{error}; the images are looked through at every start")
        return look(files, reading).bad


def refused(files: Sequence[str], reading: Reading, bad: Bad) -> Bad:
    """Return what cannot be read if that is skipped; else the first is a DataError."""
    if bad and not reading.skip:
        raise DataError(first(files, bad))
    return bad


def first(files: Sequence[str], bad: Bad) -> str:
    """Return the first file that cannot be read, and why."""
    return f"{storage.shown(Path(files[min(bad)]))}: {bad[min(bad)]}"


def in_memory(files: Sequence[str], reading: Reading) -> tuple[Tensor, Bad]:
    """Return the images decoded into memory."""
    bad: Bad = {}
    out = np.empty((len(files), 3, *reading.view.size), np.uint8)
    done = 0
    for chunk in decode_all(files, reading, bad):
        out[done : done + len(chunk)] = chunk
        done += len(chunk)
    return torch.from_numpy(out[:done]), bad


def store(files: Sequence[str], reading: Reading, path: Path) -> Manifest:
    """Decode into a file."""
    bad: Bad = {}
    digest, count = hashlib.sha256(), 0
    with storage.replacing(path) as file:
        for chunk in decode_all(files, reading, bad):
            storage.write_all(file, chunk.reshape(-1).data, digest)
            count += len(chunk)
    return Manifest(count, digest.hexdigest(), bad)


def decode_all(files: Sequence[str], reading: Reading, bad: Bad) -> Iterator[NDArray[np.uint8]]:
    """Yield all images in chunks; with a bar."""
    noted = bad if reading.skip else None
    return decoded(files, reading.view, reading.threads, noted, f"decoding {reading.root}")


def look(files: Sequence[str], reading: Reading) -> Manifest:
    """Look through the files without keeping pixels."""
    what = f"looking through {reading.root}"
    bad = broken(files, reading.threads, reading.processes, what, keep=reading.skip)
    return Manifest(len(files) - len(bad), "", bad)


def key(files: Sequence[str], reading: Reading, kind: str) -> str:
    """Return the name of the cache: 32 digits over the files, in order, and for pixels how they are seen."""
    from PIL import __version__, features

    codecs = [features.version(name) for name in ("libjpeg_turbo", "jpg", "webp", "libtiff")]
    digest = hashlib.blake2b(digest_size=16)
    seen = () if kind == "looks" else (reading.view.size, reading.view.centre)
    digest.update(repr((FORMAT, kind, *seen, __version__, codecs)).encode())
    for file, name in zip(files, below(reading.root, files), strict=True):
        try:
            found = os.stat(file)  # noqa: PTH116  (a Path per file takes ten times as long)
            state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        except OSError:
            state = "cannot be looked at"
        digest.update(os.fsencode(f"\0{name}\0{state}"))
    return digest.hexdigest()
