"""The storage of a study: a journal in the sweep's folder, or a database by URL.

The journal is an Optuna journal in a file format of its own, which processes can share and which survives an incomplete
last record. Optuna's own file becomes unreadable if a full disk or a power failure cuts a write short, because the next
record is appended to the incomplete one. Here a length and a checksum precede each record. An incomplete record at the
end is ignored, and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.engine.saving import storage
from runner.errors import CheckpointError, ConfigError, StorageError
from runner.expand_user import expanded
from runner.user_paths import full, status

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
_DATABASES = ("sqlite", "postgresql", "mysql")
# Supported major versions of Optuna: from, below
_SUPPORTED = (5, 6)
# Optuna's codes of the operations that are synced to disk: a new study, a trial's result
_SYNCED = (0, 6)
_HEADER = re.compile(rb"([0-9]{1,12}) ([0-9a-f]{8}) ")


def check_optuna_installed() -> None:
    """Raise ConfigError, with the command to install it, unless a supported version of Optuna is installed."""
    command = "pip install 'optuna>=5,<6'"
    try:
        version = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"hydra/sweeper: optuna is not installed: {command}") from error
    if not _SUPPORTED[0] <= int(version.partition(".")[0]) < _SUPPORTED[1]:
        raise ConfigError(f"hydra/sweeper: optuna {version} is not supported: {command}")


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Return the storage of a URL; without a URL, or for a path, a journal.

    Raises ConfigError if it cannot be opened.
    """
    import optuna
    from optuna.storages.journal import BaseJournalBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is not None and "://" in url:
        return _database(url)
    BaseJournalBackend.register(Journal)
    path = folder / JOURNAL if url is None else Path(expanded("hydra.sweeper.storage", url))
    try:
        return optuna.storages.JournalStorage(Journal(path))  # type: ignore[arg-type]
    except (StorageError, CheckpointError) as error:
        if url is None:
            raise
        raise ConfigError(f"hydra.sweeper.storage: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"hydra.sweeper.storage: {path} is not a journal of Optuna ({error})") from error


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Convert an error of a database in the body of a `with` block to a StorageError of one line."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("sqlalchemy.", "optuna.exceptions")):
            raise
        cause = error.__cause__ or error
        reason = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise StorageError(f"hydra.sweeper.storage: {reason}; repeat the command to go on") from error


def _database(url: str) -> BaseStorage:
    """Return the storage in a database."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    kind = url.partition("://")[0]
    if kind.partition("+")[0] not in _DATABASES:
        raise ConfigError(
            f"hydra.sweeper.storage: got '{kind}://...', must be a path or a URL of {', '.join(_DATABASES)}"
        )
    try:
        return optuna.storages.RDBStorage(_with_full_path(url))
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"hydra.sweeper.storage: cannot open {_without_password(url)}: {reason}") from error


def _with_full_path(url: str) -> str:
    """Return a URL with the file of SQLite in full: the driver opens it later, wherever the process is then."""
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    file = parsed.database
    if parsed.get_backend_name() != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return url
    return parsed.set(database=full(file)).render_as_string(hide_password=False)


def _without_password(url: str) -> str:
    """Return a URL without user and password."""
    kind, _, rest = url.partition("://")
    return f"{kind}://{rest.rpartition('@')[2]}"


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
        with storage.convert_os_errors(path), contextlib.suppress(FileExistsError):
            storage.disk.close(storage.disk.create(path))

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
