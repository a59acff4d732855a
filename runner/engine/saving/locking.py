"""The lock of a run folder, which one process holds."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path
from types import TracebackType

from runner.engine.saving import storage
from runner.engine.world import ALONE, World
from runner.errors import Locked
from runner.user_paths import full

LOCK = ".lock"
_HOLDER = re.compile(rb"(?P<pid>[0-9]+) (?P<host>[A-Za-z0-9._-]+)\n")


class _Lock:
    """The lock of a run folder; held until `release`, the end of a `with` block, or the end of the process."""

    def __init__(self, file: int | None) -> None:
        self._file = file

    def release(self) -> None:
        """Unlock the folder. A second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def lock(path: Path, world: World = ALONE) -> _Lock:
    """Lock a run folder.

    The kernel releases the lock (flock) when this process and its forks have ended, so a lock is never stale. With
    several processes, the main process holds the lock, and an error is raised in all of them.

    Raises:
        Locked: Another process holds the lock; the message gives its pid and host.
    """
    acquired = _Lock(None)

    def acquire() -> str:
        acquired._file = _open_lock_file(path)
        return ""

    world.from_main(acquire)
    return acquired


def _open_lock_file(path: Path) -> int:
    """Open and lock the lock file and return its descriptor."""
    with storage.convert_os_errors(path / LOCK):
        file = os.open(full(path / LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = _holder_in(file)
            os.close(file)
            raise Locked(f"{storage.printable(path)}: locked by {holder}") from error
        except OSError:
            os.close(file)
            raise
    return file


def _holder_in(file: int) -> str:
    """Return the holder written in a lock file; "another process" if it has not written it yet."""
    match = _HOLDER.fullmatch(os.pread(file, 300, 0))
    return f"pid {match['pid'].decode()} on {match['host'].decode()}" if match else "another process"
