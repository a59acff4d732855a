"""The journal of a study: a file of records that processes can share and that survives an incomplete last record.

It is an Optuna journal in a file format of its own. Optuna's own file becomes unreadable if a full disk or a power
failure cuts a write short, because the next record is appended to the incomplete one. Here a length and a checksum
precede each record. An incomplete record at the end is ignored, and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runner.engine.saving import storage
from runner.errors import CheckpointError, StorageError
from runner.user_paths import full, status

# Optuna's codes of the operations that are synced to disk: a new study, a trial's result
_SYNCED = (0, 6)
_HEADER = re.compile(rb"([0-9]{1,12}) ([0-9a-f]{8}) ")
# Also of an incomplete first record, or zeros that a power cut left; the next writer removes those
_LONGEST_HEADER = 23
_BEGINS = re.compile(rb"([0-9]{1,12} [0-9a-f]{8} \{|[0-9]{0,12}\Z|[0-9]{1,12} [0-9a-f]{0,8} ?\Z|\0+\Z)")


class Journal:
    """The records of a study in a file, for `optuna.storages.JournalStorage`.

    Writers lock the file itself with `flock`, which the kernel releases when a process dies. All records survive a kill
    of the process. A result and all records before it also survive a power cut. Raises CheckpointError if a record
    before the last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Number of complete records read so far, and their size in bytes
        self._known = (0, 0)
        found = status(path, error=StorageError)
        if found and not stat.S_ISREG(found.st_mode):
            # Opening a pipe would wait
            raise StorageError(f"{storage.printable(path)}: not a regular file")
        with storage.convert_os_errors(path):
            with contextlib.suppress(FileExistsError):
                storage.disk.close(storage.disk.create(path))
            with Path(full(path)).open("rb") as file:
                start = file.read(_LONGEST_HEADER)
        if not _BEGINS.match(start):
            raise CheckpointError(f"{storage.printable(path)}: is not a journal of Optuna")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from this number on."""
        number, start = self._known if log_number_from >= self._known[0] else (0, 0)
        with storage.convert_os_errors(self._path), Path(full(self._path)).open("rb") as file:
            file.seek(start)
            data = file.read()
        for text, end in _complete_records(data, self._path):
            number += 1
            if number > self._known[0]:
                self._known = (number, start + end)
            if number > log_number_from:
                yield json.loads(text)

    def append_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        """Add records after the last complete one."""
        logs = list(logs)
        data = b"".join(map(_record_line, logs))
        with storage.convert_os_errors(self._path), Path(full(self._path)).open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            start = self._known[1]
            file.seek(start)
            for _, end in _complete_records(file.read(), self._path):
                start = self._known[1] + end
            if file.seek(0, os.SEEK_END) != start:
                storage.disk.truncate(file.fileno(), start)
                file.seek(start)
            left = memoryview(data)
            while left:
                left = left[storage.disk.write(file.fileno(), left) :]
            if any(log.get("op_code") in _SYNCED for log in logs):
                storage.disk.fsync(file.fileno())


def _record_line(log: dict[str, Any]) -> bytes:
    """Return a record's line: length, checksum, JSON."""
    text = json.dumps(log, separators=(",", ":")).encode()
    return b"%d %08x %s\n" % (len(text), zlib.crc32(text), text)


def _complete_records(data: bytes, path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield text and end of each record up to the first incomplete one, which must be the last."""
    position = 0
    while (found := _record_at(data, position)) is not None:
        yield found
        position = found[1]
    later = position
    while later := data.find(b"\n", later) + 1:
        if _record_at(data, later) is not None:
            raise CheckpointError(f"{storage.printable(path)}: damaged at byte {position} of what was read")


def _record_at(data: bytes, position: int) -> tuple[bytes, int] | None:
    """Return text and end of the record at a position, None if it is incomplete."""
    match = _HEADER.match(data, position)
    if match is None:
        return None
    end = match.end() + int(match[1])
    text = data[match.end() : end]
    return (text, end + 1) if data[end : end + 1] == b"\n" and zlib.crc32(text) == int(match[2], 16) else None
