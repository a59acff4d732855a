"""Images inside tar files: read at their places when they are needed, by any process, in any order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.components.data.pixels.packed_images import Packed, PackedFiles
from runner.components.data.shards.file_states import state_of_images
from runner.components.data.shards.tar_headers import opened
from runner.engine.saving.storage import printable
from runner.errors import DataError, brief, escaped
from runner.user_paths import full

_advise = getattr(os, "posix_fadvise", None)


@dataclass(frozen=True, slots=True)
class _TarImage:
    """An encoded image at a place in a tar file."""

    shard: str
    offset: int
    size: int

    @property
    def shown(self) -> str:
        """Return file, member and place, from the headers of the tar file."""
        name = _names_in(self.shard, state_of_images([self.shard])).get(self.offset)
        member = "" if name is None else f", member '{escaped(brief(name))}'"
        return f"{printable(Path(self.shard))}{member} at byte {self.offset}"

    def read(self) -> bytes:
        """Return the bytes of the image."""
        file = os.open(full(self.shard), os.O_RDONLY)
        try:
            data = os.pread(file, self.size, self.offset)
        finally:
            os.close(file)
        if len(data) < self.size:
            raise ValueError(f"the file ends after {len(data)} of {self.size} bytes")
        return data

    def read_ahead(self) -> None:
        """Ask the system to read the bytes soon."""
        if _advise is None:
            return
        try:
            file = os.open(full(self.shard), os.O_RDONLY)
        except OSError:
            # Whoever reads the image reports it
            return
        try:
            _advise(file, self.offset, self.size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


@lru_cache(maxsize=2)
def _names_in(shard: str, state: bytes) -> dict[int, str]:
    """Return the names of the members of a tar file by their places; those before the damage of a damaged one.

    `state` changes with the file, so that a replaced one is read again.
    """
    found: dict[int, str] = {}
    try:
        with opened(shard) as reader:
            for member in reader.members():
                found[member.offset] = member.name
    except DataError:
        pass
    return found


class TarImages(PackedFiles):
    """Images in tar files, as arrays (N,): the number of the file, place and size.

    Worker processes get no names: they would take most of the memory, and the headers tell them where one is needed.
    """

    def __init__(
        self,
        shards: Sequence[str],
        groups: NDArray[np.int64],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        names: Sequence[str] = (),
    ) -> None:
        self.shards, self.groups, self._offsets, self._sizes, self._names = shards, groups, offsets, sizes, names

    def source(self, place: int) -> Packed:
        """Return the image at a position."""
        return _TarImage(self.shards[self.groups[place]], int(self._offsets[place]), int(self._sizes[place]))

    def at(self, places: NDArray[Any]) -> TarImages:
        """Return the images at some positions."""
        names = [self._names[place] for place in places.tolist()] if self._names else ()
        return TarImages(self.shards, self.groups[places], self._offsets[places], self._sizes[places], names)

    def names(self) -> list[str]:
        """Return the names of the members."""
        return list(self._names)

    def without_names(self) -> TarImages:
        """Return the same images without their names."""
        return TarImages(self.shards, self.groups, self._offsets, self._sizes)

    def state(self) -> bytes:
        """Return what changes with the bytes of any of the images."""
        return state_of_images(self.shards, self.groups, self._offsets, self._sizes)

    def _ranks(self, places: NDArray[Any]) -> NDArray[Any]:
        """Return the order of the files, and within a file that of the places."""
        order = np.lexsort((self._offsets[places], self.groups[places]))
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_names": ()}
