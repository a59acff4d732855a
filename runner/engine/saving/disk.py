"""The system calls that change a disk. They are in one class, so that tests can record them or make them fail."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from runner.user_paths import full

# The errors of `fsync` on a folder where the file system does not support it (SMB, some FUSE mounts).
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)


class Disk:
    """Every system call that changes a disk; tests replace `storage.disk` by a subclass."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist, open it for writing, and return its file descriptor."""
        return os.open(full(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def open(self, path: Path) -> int:
        """Open an existing file for writing; raise OSError for a symbolic link, and do not block on a pipe."""
        return os.open(full(path), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def write(self, file: int, data: memoryview) -> int:
        """Write bytes and return how many were written, which may be fewer than given."""
        return os.write(file, data)

    def truncate(self, file: int, size: int) -> None:
        """Truncate a file to `size` bytes."""
        os.ftruncate(file, size)

    def fsync(self, file: int) -> None:
        """Wait until the bytes of a file are on the disk."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Close a file."""
        os.close(file)

    def replace(self, old: Path, new: Path) -> None:
        """Rename a file atomically; replace an existing one."""
        # This class calls `os` only, so that each method is one system call.
        os.replace(full(old), full(new))  # noqa: PTH105

    def unlink(self, path: Path) -> None:
        """Remove a file or a symbolic link."""
        os.unlink(full(path))  # noqa: PTH108

    def mkdir(self, path: Path) -> None:
        """Create a folder that must not exist."""
        os.mkdir(full(path))  # noqa: PTH102

    def fsync_folder(self, path: Path) -> None:
        """Wait until the entries of a folder (created, renamed and removed files) are on the disk."""
        folder = os.open(full(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(folder)


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that this user may still write where a folder is, or will be made; None if that is not known."""
    for each in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(full(each))
            # Some network file systems do not know
            return found.f_bavail * found.f_frsize if found.f_blocks else None
    return None


def fills_disk(error: BaseException, folder: Path) -> bool:
    """Return True if no other write can succeed either: the disk is full, or all of it is read-only."""
    cause = error if isinstance(error, OSError) else error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number != errno.EROFS:
        return number in (errno.ENOSPC, errno.EDQUOT)
    try:
        return bool(os.statvfs(full(folder)).f_flag & os.ST_RDONLY)
    except OSError:
        return True
