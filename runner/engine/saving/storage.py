"""All durable writes: atomic writes, truncation and removal; and reads that follow no links.

After a crash or a power cut a file written here is the old one or the new one, whole (ALICE, Pillai et al. 2014): bytes
go to a temporary file in the same folder, are synced, renamed over the old file, and the folder is synced.
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
from runner.errors import StorageError

# Bytes hashed and written at a time.
PIECE = 4 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = re.compile(r"\.tmp-[0-9]+-[0-9]+")

# Tests replace it by a recording or a failing one.
disk = Disk()
_numbers = itertools.count()


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Write a file as a whole and return its sha256; whatever fails, an old file of that name stays as it was.

    Raises StorageError with the path, the reason and, where there was no room, the bytes needed and free.
    """
    digest = put(path, data)
    with refusing(path):
        disk.fsync_folder(path.parent)
    return digest


def put(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Write a file like `write_atomic` without syncing the folder: until then a power cut may lose the name."""
    digest, needed = hashlib.sha256(), 0
    try:
        with _renaming(path) as file:
            for chunk in [data] if isinstance(data, bytes) else data:
                needed += len(chunk)
                write_all(file, memoryview(chunk), digest)
    except OSError as error:
        raise refusal(path, error, needed) from error
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[int]:
    """Yield a new file that durably replaces `path` at the end; it is removed if anything fails before."""
    with _renaming(path) as file:
        yield file
    disk.fsync_folder(path.parent)


@contextlib.contextmanager
def _renaming(path: Path) -> Iterator[int]:
    """Yield a new file like `replacing`, without syncing the folder."""
    temporary, file = fresh(path.parent)
    try:
        try:
            yield file
            disk.fsync(file)
        finally:
            disk.close(file)
        disk.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise


def fresh(folder: Path) -> tuple[Path, int]:
    """Create a temporary file; skip the names that a killed process of the same pid left."""
    while True:
        path = folder / f".tmp-{os.getpid()}-{next(_numbers)}"
        with contextlib.suppress(FileExistsError):
            return path, disk.create(path)


def write_all(file: int, data: memoryview, digest: hashlib._Hash) -> None:
    """Write and hash all of `data`, piece by piece, so that each piece is hashed while it is in the cache."""
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        digest.update(piece)
        while piece:
            piece = piece[disk.write(file, piece) :]


def refusal(path: Path, error: OSError, needed: int = 0) -> StorageError:
    """Return the StorageError for an OSError, with the bytes needed and free if the disk is full."""
    room = ""
    if error.errno in _NO_ROOM:
        room = f" (needs at least {needed} bytes, {shutil.disk_usage(path.parent).free} are free)"
    return StorageError(f"{shown(path)}: {error.strerror}{room}")


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a StorageError with the path and the reason."""
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def shown(path: Path) -> str:
    """Return a path as one printable line."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def truncate(path: Path, size: int) -> None:
    """Cut a file durably to its first `size` bytes; raises StorageError if it is shorter, because bytes were lost."""
    with refusing(path):
        file = disk.open(path)
        try:
            found = os.fstat(file).st_size
            if found < size:
                raise StorageError(f"{shown(path)}: holds {found} bytes, cannot be cut to {size}")
            disk.truncate(file, size)
            disk.fsync(file)
        finally:
            disk.close(file)


def remove(path: Path) -> None:
    """Remove a file if it is there; the folder is not synced, so a power cut may bring it back."""
    with refusing(path), contextlib.suppress(FileNotFoundError):
        disk.unlink(path)


def make_folder(path: Path) -> None:
    """Make a folder durably; raises FileExistsError if it exists, StorageError for other failures."""
    try:
        disk.mkdir(path)
        disk.fsync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise refusal(path, error) from error


def names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted."""
    with refusing(folder):
        return sorted(os.listdir(folder))  # noqa: PTH208  (a tenth of `iterdir`'s time, in each save)


def sweep(folder: Path) -> list[str]:
    """Remove the temporary files that killed processes left in a folder, and return the other names, sorted.

    Call it with the run's lock held.
    """
    found = names(folder)
    left = set(filter(TEMPORARY.fullmatch, found))
    for name in left:
        remove(folder / name)
    return [name for name in found if name not in left]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[int]:
    """Open a regular file for reading, without following links or waiting for pipes; raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file
    finally:
        os.close(file)


def read(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; anything else is an OSError."""
    with _reading(path) as file:
        size = os.fstat(file).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"holds {size} bytes, at most {limit} are expected", str(path))
        with open(file, "rb", closefd=False) as stream:
            return stream.read(size)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a regular file, read in pieces; anything else is an OSError."""
    with _reading(path) as file, open(file, "rb", closefd=False) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
