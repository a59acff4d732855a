"""A file that only grows: what a disk does not take now is kept, and written before anything that follows it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from runner.engine.saving import storage


class Growing:
    """A log file, new or not, open at its end.

    `size` counts the bytes that it holds for certain, `owed` are those that follow and that the disk has not taken.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.owed = path, b""
        with storage.refusing(path):
            try:
                self._file = storage.disk.create(path)
            except FileExistsError:
                self._file = storage.disk.open(path)
        self.size = os.lseek(self._file, 0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        """Write what is owed and the data: all of it or, with OSError, nothing, and then all of it is owed."""
        self.owed += data
        rest = memoryview(self.owed)
        try:
            if os.lseek(self._file, 0, os.SEEK_CUR) != self.size:
                self._cut()
            while rest:
                rest = rest[storage.disk.write(self._file, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # else before the next try
                self._cut()
            raise
        self.size, self.owed = self.size + len(self.owed), b""

    def sync(self) -> int:
        """Wait until all but what is owed is on the disk, and return those bytes; OSError if the file is gone."""
        here, named = os.fstat(self._file), self.path.lstat()
        if (here.st_dev, here.st_ino) != (named.st_dev, named.st_ino):
            raise OSError(errno.ENOENT, "another file has taken its place")
        storage.disk.fsync(self._file)
        return self.size

    def close(self) -> None:
        """Close the file."""
        storage.disk.close(self._file)

    def _cut(self) -> None:
        storage.disk.truncate(self._file, self.size)
        os.lseek(self._file, self.size, os.SEEK_SET)
