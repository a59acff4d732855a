"""The locks that this process holds; each change of a file checks the lock of its run folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from runner.engine.private_descriptors import Private, keep_private
from runner.errors import Locked, escaped
from runner.user_paths import absolute, full

LOCK = ".lock"


class Held(Private):
    """The locked lock file of a folder; a forked process does not inherit it."""

    def __init__(self, folder: Path, file: int) -> None:
        self.folder, self.file = folder, file
        self.lent = False
        self._prefix = f"{absolute(folder)}/"
        self._inode = _identity(folder)
        _held.add(self)
        keep_private(self)

    def close(self) -> None:
        """Unlock the folder. A second call does nothing."""
        _held.discard(self)
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    abandon = close

    def covers(self, path: Path) -> bool:
        """Return True if a path is in the folder."""
        return absolute(path).startswith(self._prefix)

    def is_of(self, folder: Path) -> bool:
        """Return True if this is the lock of a folder."""
        return self._inode is not None and self._inode == _identity(folder)

    def check(self) -> None:
        """Raise Locked if another process may have the folder now: its lock file was removed, or the folder itself.

        Where nobody has taken the lock since, it is taken again.
        """
        now = _identity(self.folder)
        # A folder that is gone has no files to protect, and the write says so
        if now is None:
            return
        if now != self._inode:
            raise Locked(f"{escaped(str(self.folder))}: was removed and made again; this process no longer writes here")
        if not is_same_file(self.file, self.folder / LOCK) and not self._take_again():
            raise Locked(f"{escaped(str(self.folder))}: its {LOCK} was replaced; this process no longer writes here")

    def _take_again(self) -> bool:
        """Create and lock the lock file again; return False if another process was faster."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(full(self.folder / LOCK), flags, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            # Of a folder that cannot be written, the write says so
            return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(file, os.pread(self.file, 300, 0), 0)
        except OSError:
            os.close(file)
            return False
        os.close(self.file)
        self.file = file
        return True


_held: set[Held] = set()


def check_held(path: Path) -> None:
    """Raise Locked if a path is to be changed in a folder whose lock this process has lost."""
    for each in tuple(_held):
        if each.covers(path):
            each.check()


def lent(folder: Path) -> Held | None:
    """Return the lock of a folder that its holder in this process lends to a task, None if there is none."""
    return next((each for each in _held if each.lent and each.is_of(folder)), None)


def is_same_file(file: int, path: Path) -> bool:
    """Return True if a path names an opened file."""
    opened = os.fstat(file)
    return _identity(path) == (opened.st_dev, opened.st_ino)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and number of a file or folder, None if it is not there."""
    try:
        # This is called before each write: `Path.stat` takes twice as long
        found = os.stat(full(path))  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino
