"""Images in columns of Parquet and Arrow files: a group of rows is read when one of its images is needed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.components.data.pixels.packed_images import Packed, PackedFiles
from runner.components.data.shards.arrow_files import ArrowFile, open_arrow
from runner.components.data.shards.file_states import state_of_images
from runner.engine.saving.storage import printable
from runner.user_paths import full

# Open files that a process keeps
_MOST_FILES = 32
# Bytes of small groups that it keeps
_MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class _ArrowImage:
    """An encoded image in a row: of a group of rows, which is the `first` and following rows of a file."""

    file: str
    group: int
    row: int
    first: int
    column: str
    size: int
    keep: int

    @property
    def shown(self) -> str:
        """Return file, column and row."""
        return f"{printable(Path(self.file))}, column '{self.column}', row {self.first + self.row + 1}"

    def read(self) -> bytes:
        """Return the bytes of the image. Raises ValueError if there are none."""
        cell = _groups.get(self.file, self.group, self.column, self.keep)[self.row].as_py()
        if isinstance(cell, dict):
            cell = cell.get("bytes")
        if cell is None:
            raise ValueError("the cell has no bytes; images in other files are not read")
        return bytes(cell)

    def read_ahead(self) -> None:
        """Do nothing: a group of rows is read as a whole, and soon."""


class _Groups:
    """The groups of rows that a process has read last, and the open files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, ArrowFile] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int, str], Any] = OrderedDict()
        self._bytes = 0

    def get(self, file: str, group: int, column: str, keep: int) -> Any:
        """Return a column of a group; the last `keep` groups stay in memory, and more while they are small."""
        with self._lock:
            status = os.stat(full(file))  # noqa: PTH116
            # A file may be replaced while a notebook uses it
            known = f"{file} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
            key = (known, group, column)
            if key not in self._groups:
                found = self._file(file, known).read(group, column)
                self._groups[key] = found
                self._bytes += found.nbytes
                while len(self._groups) > keep and self._bytes > _MOST_BYTES:
                    self._bytes -= self._groups.popitem(last=False)[1].nbytes
            self._groups.move_to_end(key)
            return self._groups[key]

    def _file(self, file: str, known: str) -> ArrowFile:
        """Return an open file; its path and state name it."""
        if known not in self._files:
            self._files[known] = open_arrow(Path(file))
            if len(self._files) > _MOST_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(known)
        return self._files[known]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._files.clear()
            self._groups.clear()
            self._bytes = 0


_groups = _Groups()


class ArrowImages(PackedFiles):
    """Images in files, as arrays: of each image its group and its row in that; of each group its file and first row."""

    def __init__(
        self,
        files: Sequence[str],
        column: str,
        where: NDArray[np.int64],
        groups: NDArray[np.int64],
        rows: NDArray[np.int64],
        size: int,
        keep: int,
    ) -> None:
        # (G, 3): of each group the number of the file, its number in the file, its first row
        self._where = where
        self.files, self._column, self.groups, self._rows = files, column, groups, rows
        self._size, self._keep = size, keep

    def source(self, place: int) -> Packed:
        """Return the image at a position."""
        file, group, first = self._where[self.groups[place]].tolist()
        row = int(self._rows[place])
        return _ArrowImage(self.files[file], group, row, first, self._column, self._size, self._keep)

    def at(self, places: NDArray[Any]) -> ArrowImages:
        """Return the images at some positions."""
        groups, rows = self.groups[places], self._rows[places]
        return ArrowImages(self.files, self._column, self._where, groups, rows, self._size, self._keep)

    def file_numbers(self) -> NDArray[np.int64]:
        """Return the number of the file (N,) that each image is in."""
        found: NDArray[np.int64] = self._where[self.groups, 0]
        return found

    def names(self) -> list[str]:
        """Return file and row of each image."""
        short = [Path(file).name for file in self.files]
        if len(set(short)) < len(short):
            short = [f"{number}/{name}" for number, name in enumerate(short)]
        files, rows = self.file_numbers().tolist(), (self._where[self.groups, 2] + self._rows).tolist()
        return [f"{short[file]}[{row}]" for file, row in zip(files, rows, strict=True)]

    def state(self) -> bytes:
        """Return what changes with the bytes of any of the images."""
        return self._column.encode() + state_of_images(self.files, self._where, self.groups, self._rows)

    def _ranks(self, places: NDArray[Any]) -> NDArray[Any]:
        """Return the order of groups and rows."""
        ranks: NDArray[np.int64] = self.groups[places] * (int(self._rows.max(initial=0)) + 1) + self._rows[places]
        return ranks
