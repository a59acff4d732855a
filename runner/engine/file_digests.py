"""Digests of files' contents, each file read once: a small cache keeps them by the file's state. Imports no torch.

The state is path, size, inode, and the times of change of the contents (mtime) and of the inode (ctime). No program can
set ctime back, so a file that is replaced at equal size with its old mtime is read again. A file that changed within
the last seconds is not kept: its next change might get the same times, since clocks of file systems tick slowly.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runner.engine.world import cores
from runner.user_folders import cache_folder
from runner.user_paths import absolute, full

# Bytes of a digest, and of the key of a file's state
DIGEST_BYTES = 16
_ROW = 2 * DIGEST_BYTES
# Nanoseconds after which a change of a file gets another time on every file system (FAT: 2 s)
_TICK = 2_000_000_000
# Files of a task of a thread
_PER_TASK = 16
# Bytes below which the interpreter takes longer than reading and hashing, so that a second thread only waits for it
_SMALL_FILE = 65536
_SECONDS_UNUSED = 90 * 24 * 3600
_UNREADABLE = hashlib.sha256(b"unreadable").digest()[:DIGEST_BYTES]


def cache_home() -> Path:
    """Return the folder of the caches of fingerprints, below the user's cache folder."""
    return Path(full(cache_folder())) / "fingerprints"


def is_settled(status: os.stat_result, now: int) -> bool:
    """Return True if every later change of a file will change its state; `now` is in nanoseconds."""
    return max(status.st_ctime_ns, status.st_mtime_ns) + _TICK < now


def state_of(name: str, status: os.stat_result) -> bytes:
    """Return the name of a file and what changes with every change of it; a sequence of states can be joined."""
    numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return b"%s\0%d %d %d %d\0" % (os.fsencode(name), *numbers)


def digest_files(root: Path, names: Sequence[str]) -> tuple[list[int], list[bytes]]:
    """Return size and digest of the contents of each of some files below a folder, in their order.

    A file that cannot be read has the digest of no file, and size 0: whoever needs it reports it.
    """
    now, path, place = time.time_ns(), cache_file(root, "files"), full(root)
    known = read_rows(path)
    kept: dict[bytes, bytes] = {}

    def look(name: str) -> tuple[int, bytes]:
        try:
            status = os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118  (a Path per file takes ten times as long)
        except (OSError, ValueError):
            return 0, _UNREADABLE
        key = hashlib.blake2b(state_of(name, status), digest_size=DIGEST_BYTES).digest()
        found = known.get(key) or _content(os.path.join(place, name), status)  # noqa: PTH118
        if found != _UNREADABLE and is_settled(status, now):
            kept[key] = found
        return status.st_size, found

    looked = _each(place, look, names)
    if not kept.keys() <= known.keys():
        write_rows(path, known, kept)
    return [size for size, _ in looked], [found for _, found in looked]


def _each(root: str, look: Callable[[str], tuple[int, bytes]], names: Sequence[str]) -> list[tuple[int, bytes]]:
    """Return what `look` returns for each name, in order, from threads if the files are large."""
    threads = min(8, cores())
    some = names[:: max(1, len(names) // 16)]
    if threads == 1 or sum(size_of(os.path.join(root, name)) for name in some) < _SMALL_FILE * len(some):  # noqa: PTH118
        return list(map(look, names))
    tasks = [names[start : start + _PER_TASK] for start in range(0, len(names), _PER_TASK)]
    with ThreadPoolExecutor(threads) as pool:
        return [found for task in pool.map(lambda some: list(map(look, some)), tasks) for found in task]


def size_of(path: str) -> int:
    """Return the size of a file, 0 if there is none."""
    try:
        return os.stat(full(path)).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return 0


def _content(path: str, status: os.stat_result) -> bytes:
    """Return the digest of a regular file's bytes."""
    # Opening a pipe would block
    if not stat.S_ISREG(status.st_mode):
        return _UNREADABLE
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            # One read for a small file: `file_digest` allocates a quarter of a megabyte for each
            if status.st_size < 1 << 18:
                return hashlib.sha256(file.read() or b"").digest()[:DIGEST_BYTES]
            return hashlib.file_digest(file, "sha256").digest()[:DIGEST_BYTES]
    except OSError:
        return _UNREADABLE


def cache_file(root: Path, kind: str) -> Path:
    """Return the file that keeps digests of one kind of the files below a folder."""
    place = os.fsencode(absolute(root))
    return cache_home() / f"{hashlib.blake2b(place, digest_size=DIGEST_BYTES).hexdigest()}.{kind}"


def read_rows(path: Path) -> dict[bytes, bytes]:
    """Return digest by state, empty if there is no cache: a checksum and rows of key and digest."""
    try:
        data = Path(full(path)).read_bytes()
    except OSError:
        return {}
    seal, rows = data[:_ROW], data[_ROW:]
    if len(rows) % _ROW or hashlib.sha256(rows).digest() != seal:
        return {}
    return {rows[at : at + DIGEST_BYTES]: rows[at + DIGEST_BYTES : at + _ROW] for at in range(0, len(rows), _ROW)}


def write_rows(path: Path, known: dict[bytes, bytes], kept: dict[bytes, bytes]) -> None:
    """Keep digests; those of files that were not asked for stay while they are the smaller part."""
    others = known if len(known) <= len(kept) else {}
    rows = b"".join(key + found for key, found in {**others, **kept}.items())
    write_cache(path, hashlib.sha256(rows).digest() + rows)


def write_cache(path: Path, data: bytes) -> None:
    """Replace a file of the cache atomically if the disk allows it: a lost cache only costs time."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
        _remove_stale(path.parent)
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Remove what was not used for long."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < time.time() - _SECONDS_UNUSED:
                os.unlink(entry.path)  # noqa: PTH108
