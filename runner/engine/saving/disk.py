"""The system calls that change a disk, in one place, so that a test can record them or make them fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what SMB and some FUSE mounts say to fsync on a folder


class Disk:
    """Every system call that changes a disk. A test puts its own into `storage.disk`, to record or to fail."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist yet, open for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def open(self, path: Path) -> int:
        """Open an existing file for writing; a symbolic link is refused, a pipe nobody reads does not block."""
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def write(self, file: int, data: memoryview) -> int:
        """Write what fits and return how many bytes that were."""
        return os.write(file, data)

    def truncate(self, file: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(file, size)

    def fsync(self, file: int) -> None:
        """Return when the file's bytes are on the disk."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close a file."""
        os.close(file)

    def replace(self, old: Path, new: Path) -> None:
        """Rename a file, over another one if it is there."""
        os.replace(old, new)  # noqa: PTH105  (one row of system calls)

    def unlink(self, path: Path) -> None:
        """Remove a file (of a symbolic link, the link)."""
        os.unlink(path)  # noqa: PTH108

    def mkdir(self, path: Path) -> None:
        """Make a folder that must not exist yet."""
        os.mkdir(path)  # noqa: PTH102

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)  # noqa: PTH106

    def fsync_folder(self, path: Path) -> None:
        """Return when the folder's names (creations, renames, removals) are on the disk."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(folder)
