"""Durable writes (atomic writes, truncation, removal) and reads that do not follow symbolic links.

After a crash or a power cut, a file written here has either its complete old or its complete new content (ALICE, Pillai
et al. 2014). The bytes are written to a temporary file in the same folder and synced; the file is renamed to the final
name, and the folder is synced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.engine.saving.disk import Disk
from runner.engine.saving.held import check_held
from runner.errors import KEY, StorageError, brief, escaped
from runner.user_paths import full, is_dir

# Bytes hashed and written at a time.
PIECE = 4 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
TEMPORARY = re.compile(r"\.tmp-[0-9]+-[0-9]+")

# Tests replace it to record system calls or to make them fail.
disk = Disk()
_numbers = itertools.count()


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Write a file atomically and durably and return its sha256 (hex). After an error the old file is unchanged.

    Raises:
        StorageError: The file cannot be written; the message has the path, the reason and, if the disk is full, the
            bytes needed and free.
    """
    digest = write_unsynced(path, data)
    with convert_os_errors(path):
        disk.fsync_folder(path.parent)
    return digest


def write_unsynced(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Write a file like `write_atomic`, but do not sync the folder: a power cut may bring the old file back."""
    digest, needed = hashlib.sha256(), 0
    try:
        with _renamed_at_end(path) as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                needed += len(chunk)
                write_all(file, memoryview(chunk), digest)
    except OSError as error:
        raise to_storage_error(path, error, needed) from error
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_replacement(path: Path) -> Iterator[int]:
    """Yield a new file that atomically and durably replaces `path` at the end; after an error it is removed."""
    with _renamed_at_end(path) as file:
        yield file
    disk.fsync_folder(path.parent)


@contextlib.contextmanager
def _renamed_at_end(path: Path) -> Iterator[int]:
    """Yield a new file like `atomic_replacement`, but do not sync the folder."""
    check_held(path)
    temporary, file = create_temporary(path.parent)
    try:
        try:
            yield file
            disk.fsync(file)
        finally:
            disk.close(file)
        # The bytes of a large file take seconds
        check_held(path)
        disk.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise


def create_temporary(folder: Path) -> tuple[Path, int]:
    """Create a temporary file in a folder and return its path and descriptor.

    A killed process with the same pid may have left files; their names are skipped.
    """
    while True:
        path = folder / f".tmp-{os.getpid()}-{next(_numbers)}"
        with contextlib.suppress(FileExistsError):
            return path, disk.create(path)


def write_all(file: int, data: memoryview, digest: hashlib._Hash) -> None:
    """Write and hash all of `data`, in pieces: a piece is still in the CPU cache when it is written."""
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        digest.update(piece)
        while piece:
            piece = piece[disk.write(file, piece) :]


def to_storage_error(path: Path, error: OSError, needed: int = 0) -> StorageError:
    """Return a StorageError with the path and the reason of an OSError, and the bytes needed if the disk is full."""
    space = ""
    if error.errno in _DISK_FULL:
        with contextlib.suppress(OSError):
            space = f" (needs at least {needed} bytes, {shutil.disk_usage(full(path.parent)).free} are free)"
    return StorageError(f"{printable(path)}: {error.strerror}{space}")


def is_read_only(error: StorageError) -> bool:
    """Return True if this user may not write there, as on a read-only file system; a full disk is another matter."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _READ_ONLY


@contextlib.contextmanager
def convert_os_errors(path: Path) -> Iterator[None]:
    """Convert an OSError in the body of a `with` block to a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise to_storage_error(path, error) from error


def printable(path: Path) -> str:
    """Return a path as one printable line, of a very long one the beginning."""
    return brief(escaped(str(path)), KEY)


def truncate(path: Path, size: int) -> None:
    """Truncate a file durably to `size` bytes; raise StorageError if it is shorter, because bytes were lost."""
    check_held(path)
    with convert_os_errors(path):
        file = disk.open(path)
        try:
            found = os.fstat(file).st_size
            if found < size:
                raise StorageError(f"{printable(path)}: has {found} bytes, cannot be truncated to {size}")
            disk.truncate(file, size)
            disk.fsync(file)
        finally:
            disk.close(file)


def remove(path: Path) -> None:
    """Remove a file if it exists. The folder is not synced, so a power cut may bring the file back."""
    check_held(path)
    with convert_os_errors(path), contextlib.suppress(FileNotFoundError):
        disk.unlink(path)


def make_folder(path: Path) -> None:
    """Create a folder durably; raise FileExistsError if it exists, StorageError for any other error."""
    check_held(path)
    try:
        disk.mkdir(path)
        disk.fsync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise to_storage_error(path, error) from error


def make_folders(path: Path) -> None:
    """Create a folder and those above it, if they do not exist; raise StorageError if that fails."""
    if not is_dir(path, error=StorageError):
        with folders_above(path):
            try:
                make_folder(path)
            except FileExistsError as error:
                # Another process was faster, or something else is there
                if not is_dir(path, error=StorageError):
                    raise to_storage_error(path, error) from error


@contextlib.contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Create the folders above a path durably; an error in the body of the `with` block removes the new ones again.

    Raises StorageError if that fails.
    """
    made: list[Path] = []
    try:
        for parent in reversed([parent for parent in path.parents if not is_dir(parent, error=StorageError)]):
            with contextlib.suppress(FileExistsError):
                make_folder(parent)
                made.append(parent)
        yield
    except BaseException:
        # Not if another process has put something into them
        with contextlib.suppress(OSError):
            for parent in reversed(made):
                os.rmdir(full(parent))  # noqa: PTH106
        raise


def names(folder: Path) -> list[str]:
    """Return the sorted names of the files in a folder."""
    with convert_os_errors(folder):
        # A tenth of the time of `Path.iterdir`, at each save.
        return sorted(os.listdir(full(folder)))  # noqa: PTH208


def remove_temporary(folder: Path) -> list[str]:
    """Remove the temporary files that killed processes left in a folder, and return the other names, sorted.

    The caller holds the lock of the run, so no other process is writing such a file.
    """
    present = names(folder)
    temporary = set(filter(TEMPORARY.fullmatch, present))
    for name in temporary:
        remove(folder / name)
    return [name for name in present if name not in temporary]


@contextlib.contextmanager
def _open_for_reading(path: Path) -> Iterator[int]:
    """Open a regular file for reading; raise OSError for anything else, such as a symbolic link or a pipe."""
    file = os.open(full(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file
    finally:
        os.close(file)


def read(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file; raise OSError for anything else and for more than `limit` bytes."""
    with _open_for_reading(path) as file:
        size = os.fstat(file).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"has {size} bytes, expected at most {limit}", str(path))
        with open(file, "rb", closefd=False) as stream:
            return stream.read(size)


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a regular file, read in pieces; raise OSError for anything else."""
    with _open_for_reading(path) as file, open(file, "rb", closefd=False) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
