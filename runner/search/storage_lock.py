"""The lock of a shared storage: one process at a time creates a study in it, or picks the next point of one.

Optuna's storages number trials atomically, but between looking at a study and adding a trial to it another process may
do the same. Whoever holds this lock looks and adds alone. A lock is never stale: the kernel or the database releases it
when the process that holds it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from runner.engine.saving.storage import convert_os_errors, printable
from runner.errors import StorageError
from runner.search.storage import KEY, is_database, journal_path, sqlite_path, storage_errors
from runner.user_paths import full

# Seconds to wait for another process, which may compute its next point meanwhile
_PATIENCE = 600
_PAUSE = 0.02
# Any number that other programs are unlikely to use
_NUMBER = zlib.crc32(b"runner.search")


def locked(url: str | None) -> AbstractContextManager[None]:
    """Hold the lock of a storage. A study in the sweep's own folder needs none, because that folder is locked.

    Raises StorageError if the lock cannot be had.
    """
    if url is None:
        return contextlib.nullcontext()
    if not is_database(url):
        return _lock_file(journal_path(url))
    path = sqlite_path(url) if url.startswith("sqlite") else None
    return _lock_file(path) if path else _lock_in_server(url)


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Lock the file `<name>.lock` beside a storage; SQLite locks its own file in a way that conflicts on NFS."""
    lock = path.with_name(f"{path.name}.lock")
    with convert_os_errors(path):
        file = os.open(full(lock), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        until = time.monotonic() + _PATIENCE
        while not _is_acquired(file, lock):
            if time.monotonic() > until:
                raise StorageError(f"{KEY}: {printable(lock)} has been locked for {_PATIENCE} s by another process")
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(file)


def _is_acquired(file: int, path: Path) -> bool:
    """Return True if the lock was free and is now held."""
    try:
        with convert_os_errors(path):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except StorageError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return False
        raise
    return True


@contextmanager
def _lock_in_server(url: str) -> Iterator[None]:
    """Hold an advisory lock of a database server on a connection of its own."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with storage_errors(url):
        engine = create_engine(url, poolclass=NullPool)
        connection = engine.connect()
    try:
        with storage_errors(url):
            if engine.dialect.name == "postgresql":
                # Until the end of the transaction, because a connection pooler may separate two statements otherwise
                connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_NUMBER})"))
            elif not connection.execute(text(f"SELECT GET_LOCK('runner-{_NUMBER}', {_PATIENCE})")).scalar():
                raise StorageError(f"{KEY}: has been locked for {_PATIENCE} s by another process")
        yield
    finally:
        # The end of the connection releases the lock
        with contextlib.suppress(Exception):
            connection.close()
