"""Tar shards and pictures for tests, written by Python's `tarfile`."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def png(label: int, number: int, size: int = 8) -> bytes:
    """Return a picture whose color says its class."""
    pixels = np.random.default_rng(1000 * label + number).integers(0, 60, (size, size, 3), dtype=np.uint8)
    pixels[..., label % 3] += 150
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def odd_images(folder: Path) -> dict[str, bytes]:
    """Return an image with transparent pixels, and a TIFF with a band more than color."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(folder / "clear.png")
    Image.fromarray(pixels, "RGBA").save(folder / "bands.tif")
    # The tag that says that the fourth band is transparency becomes one that nobody reads
    tag = struct.pack("<HH", 338, 3)
    whole = (folder / "bands.tif").read_bytes()
    assert whole.count(tag) == 1
    return {
        "clear.png": (folder / "clear.png").read_bytes(),
        "bands.tif": whole.replace(tag, struct.pack("<HH", 65000, 3)),
    }


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], kind: int = tarfile.DEFAULT_FORMAT) -> Path:
    """Write a tar file with some members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shard_of(folder: Path, files: Iterable[Path], path: Path) -> Path:
    """Write images `<class>/<name>` below a folder as a shard, each with its class as `.cls`."""
    members = []
    for file in files:
        name = file.relative_to(folder).as_posix()
        members += [(name, file.read_bytes()), (f"{name.partition('.')[0]}.cls", file.parent.name.encode())]
    return write_tar(path, members)


def write_shards(folder: Path, shards: int = 4, count: int = 9, prefix: str = "", classes: int = 3) -> Path:
    """Write shards of as many pictures each, the classes in turn, labeled by `.cls`."""
    for shard in range(shards):
        members = []
        for place in range(count):
            number = shard * count + place
            members.append((f"{number:04}.png", png(number % classes, number)))
            members.append((f"{number:04}.cls", str(number % classes).encode()))
        write_tar(folder / f"{prefix}{shard:03}.tar", members)
    return folder
