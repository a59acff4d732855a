"""Images that lie inside larger files, beside images in files of their own.

A source of an image is a path or a `Packed`: bytes somewhere in a shard. Whatever decodes, validates or scans images
takes either. Millions of packed images are kept as a few arrays (`PackedFiles`), from which a `Packed` is made when it
is asked for, so that a split costs some bytes per image in each process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from runner.engine.file_digests import size_of
from runner.engine.read_ahead import read_ahead
from runner.engine.saving.storage import printable


class Packed(Protocol):
    """An encoded image inside a larger file."""

    @property
    def shown(self) -> str:
        """Return the file and the place in it, for messages; it may be slow."""
        ...

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        ...

    def read(self) -> bytes:
        """Return the encoded image. Raises DataError, OSError or ValueError if it cannot be read."""
        ...

    def read_ahead(self) -> None:
        """Ask the system to read the bytes soon, without waiting for it."""
        ...


ImageSource = str | Packed


class PackedFiles(Sequence[ImageSource], ABC):
    """Packed images as a sequence that holds no object per image."""

    # The number of the group (N,) int64 that each image is read with: its shard, or its row group
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, place: int) -> ImageSource: ...
    @overload
    def __getitem__(self, place: slice) -> PackedFiles: ...
    def __getitem__(self, place: int | slice) -> ImageSource | PackedFiles:
        return self.at(np.arange(len(self))[place]) if isinstance(place, slice) else self.source(place)

    @abstractmethod
    def source(self, place: int) -> Packed:
        """Return the image at a position."""

    @abstractmethod
    def at(self, places: NDArray[Any]) -> PackedFiles:
        """Return the images at some positions (M,)."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the name of each image, the same wherever the shards lie."""

    @abstractmethod
    def state(self) -> bytes:
        """Return what changes with the bytes of any of the images, without reading them."""

    def in_order(self, places: Sequence[int]) -> list[int]:
        """Return the order in which images at `places` are read best: as they stand in the files."""
        order: list[int] = np.argsort(self._ranks(np.asarray(places)), kind="stable").tolist()
        return order

    @abstractmethod
    def _ranks(self, places: NDArray[Any]) -> NDArray[Any]:
        """Return numbers that are ascending where images are read one after the other."""


def take(files: Sequence[ImageSource], index: Tensor) -> Sequence[ImageSource]:
    """Return the images at the positions `index` (M,) int64."""
    return files.at(index.numpy()) if isinstance(files, PackedFiles) else [files[i] for i in index.tolist()]


def joined(files: Sequence[ImageSource], more: Sequence[ImageSource]) -> Sequence[ImageSource]:
    """Return the images of two splits one after the other, for messages about them."""
    return _Joined(files, more)


class _Joined(Sequence[ImageSource]):
    """Two sequences as one, without a copy."""

    def __init__(self, first: Sequence[ImageSource], second: Sequence[ImageSource]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, place: Any) -> Any:
        count = len(self._first)
        return self._first[place] if place < count else self._second[place - count]


def shown(source: ImageSource) -> str:
    """Return where an image is, for messages."""
    return printable(Path(source)) if isinstance(source, str) else source.shown


def bytes_of(source: ImageSource) -> int:
    """Return the size of an encoded image, 0 if it is not there."""
    return size_of(source) if isinstance(source, str) else source.size


def read_ahead_images(sources: Iterable[ImageSource]) -> None:
    """Ask the system to read encoded images soon, without waiting for it."""
    for source in sources:
        if isinstance(source, str):
            read_ahead([source])
        else:
            source.read_ahead()
