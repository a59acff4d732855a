"""Optuna's journal in a file that survives a torn last record and is shared by processes.

Optuna's own file is unreadable for good once a write was cut short, by a full disk or a power failure: the next record
is glued to the rest of it. Here each record has its length and checksum before it, what is torn at the end does not
count, and the next writer cuts it off.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runner.engine.saving import storage
from runner.errors import CheckpointError

LASTING = (0, 6)  # operations of Optuna's that are waited for until the disk has them: a new study, a trial's result
HEADER = re.compile(rb"([0-9]{1,12}) ([0-9a-f]{8}) ")


class Journal:
    """The records of a study in a file, for `optuna.storages.JournalStorage`.

    Writers take turns by `flock` on the file itself, which the kernel frees when a process dies. What is written
    survives the death of the process; a result, with all before it, that of the machine. Raises CheckpointError where a
    record before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = (0, 0)  # records found whole so far, and the bytes that they take
        with storage.refusing(path):
            path.open("ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from a number on."""
        number, start = self._known if log_number_from >= self._known[0] else (0, 0)
        with storage.refusing(self._path), self._path.open("rb") as file:
            file.seek(start)
            data = file.read()
        for text, end in whole(data, self._path):
            number += 1
            if number > self._known[0]:
                self._known = (number, start + end)
            if number > log_number_from:
                yield json.loads(text)

    def append_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        """Add records after the last whole one."""
        logs = list(logs)
        data = b"".join(map(record, logs))
        with storage.refusing(self._path), self._path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            start = self._known[1]
            file.seek(start)
            for _, end in whole(file.read(), self._path):
                start = self._known[1] + end
            file.truncate(start)
            file.seek(start)
            file.write(data)
            file.flush()
            if any(log.get("op_code") in LASTING for log in logs):
                os.fsync(file.fileno())


def record(log: dict[str, Any]) -> bytes:
    """Return a record's line: length, checksum, JSON."""
    text = json.dumps(log, separators=(",", ":")).encode()
    return b"%d %08x %s\n" % (len(text), zlib.crc32(text), text)


def whole(data: bytes, path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield text and end of each record up to the first that is not whole, which must be the last."""
    position = 0
    while (found := one(data, position)) is not None:
        yield found
        position = found[1]
    later = position
    while later := data.find(b"\n", later) + 1:
        if one(data, later) is not None:
            raise CheckpointError(f"{storage.shown(path)}: damaged at byte {position} of what was read")


def one(data: bytes, position: int) -> tuple[bytes, int] | None:
    """Return text and end of the record at a position, None if there is no whole one."""
    match = HEADER.match(data, position)
    if match is None:
        return None
    end = match.end() + int(match[1])
    text = data[match.end() : end]
    return (text, end + 1) if data[end : end + 1] == b"\n" and zlib.crc32(text) == int(match[2], 16) else None
