"""The lock of a run folder, which one process holds."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from runner.engine import processes
from runner.engine.saving import storage
from runner.engine.saving.held import LOCK, Held, is_same_file, lent
from runner.engine.world import ALONE, World
from runner.errors import Locked
from runner.user_paths import full

_LINE = re.compile(rb"(?P<pid>[0-9]+) (?P<host>[A-Za-z0-9._-]+)( (?P<start>[0-9]+))?\n")
# Seconds to wait for a lock whose owner has ended: the kernel may still be closing its files
_PATIENCE = 1.0


class FolderLock:
    """The lock of a run folder; held until `release`, the end of a `with` block, or the end of the process."""

    def __init__(self) -> None:
        self.held: Held | None = None
        self.borrowed = False

    def release(self) -> None:
        """Unlock the folder, or give back a lock that was lent. A second call does nothing."""
        if self.held is not None and self.borrowed:
            self.held.lent = True
        elif self.held is not None:
            self.held.close()
        self.held = None

    @contextmanager
    def lend(self) -> Iterator[None]:
        """Let the next `lock` of this process on the same folder have this lock, while the body runs."""
        assert self.held is not None
        self.held.lent = True
        try:
            yield
        finally:
            self.held.lent = False

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def lock(path: Path, world: World = ALONE) -> FolderLock:
    """Lock a run folder.

    The kernel releases the lock (flock) when this process ends. Forked processes close their copy of it, so nothing
    that a run leaves behind keeps its lock. With several processes, the main process holds the lock, and an error is
    raised in all of them.

    Raises:
        Locked: Another process holds the lock; the message gives its pid and host.
    """
    acquired = FolderLock()

    def acquire() -> str:
        if (borrowed := lent(path)) is not None:
            borrowed.lent, acquired.borrowed, acquired.held = False, True, borrowed
        else:
            acquired.held = _open_lock_file(path)
        return ""

    world.from_main(acquire)
    return acquired


def _open_lock_file(path: Path) -> Held:
    """Open and lock the lock file."""
    until = time.monotonic() + _PATIENCE
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with storage.convert_os_errors(path / LOCK):
        while True:
            file = os.open(full(path / LOCK), flags, 0o666)
            try:
                if _try_lock(file, path):
                    return Held(path, file)
                holder = _Holder.of(file)
            except BaseException:
                os.close(file)
                raise
            os.close(file)
            if holder.is_running or time.monotonic() > until:
                raise Locked(f"{storage.printable(path)}: locked by {holder.words}")
            time.sleep(0.02)


def holder(path: Path) -> str | None:
    """Return who holds the lock of a run folder ("pid 12 on vm"), None if nobody does."""
    try:
        file = os.open(full(path / LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _Holder.of(file).words
    except OSError:
        return None
    finally:
        os.close(file)
    return None


def _try_lock(file: int, path: Path) -> bool:
    """Lock an opened lock file and write this process into it; return False if another one holds it or removed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not is_same_file(file, path / LOCK):
        return False
    os.ftruncate(file, 0)
    os.pwrite(
        file, f"{os.getpid()} {socket.gethostname()} {processes.start_of(os.getpid())}".strip().encode() + b"\n", 0
    )
    return True


@dataclass(frozen=True)
class _Holder:
    """The holder of a lock, in words; `is_running` is False if the process that the file names has ended."""

    words: str
    is_running: bool

    @classmethod
    def of(cls, file: int) -> _Holder:
        """Return the holder of a lock file: the process in its text, if it still is that process."""
        match = _LINE.fullmatch(os.pread(file, 300, 0))
        if match is None:
            return cls(_holders_in_words(file) or "another process", is_running=False)
        pid, host = int(match["pid"]), match["host"].decode()
        words = f"pid {pid} on {host}"
        if host != socket.gethostname() or _is_owner(pid, (match["start"] or b"").decode()):
            return cls(words, is_running=True)
        found = _holders_in_words(file)
        return cls(f"{found} (from {words}, which has ended)" if found else "another process", is_running=False)


def _is_owner(pid: int, start: str) -> bool:
    """Return True if a process lives and started when the owner of a lock did: another may have its number by now."""
    now = processes.start_of(pid)
    return processes.is_alive(pid) and (not start or not now or start == now)


def _holders_in_words(file: int) -> str:
    """Return the processes of this machine that hold the lock of an opened file, empty if none can be seen."""
    pids = processes.lock_holders(file)
    return f"pid {', '.join(map(str, pids))} on {socket.gethostname()}" if pids else ""
