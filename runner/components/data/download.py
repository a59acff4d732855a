"""Atomic downloads, and folder locks between processes.

A download goes to a folder of its own and is then moved, by one process at a time, so that a killed one leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# (root, download=...) -> torchvision data set
OpenDataset = Callable[..., Any]
# Holds a download until it is complete
DOWNLOAD_FOLDER = ".download"
# Seconds without data before a download is aborted
_TIMEOUT = 60.0


def download_into(make: OpenDataset, root: Path) -> None:
    """Download to a temporary folder and move the result into `root`, so that `root` never holds half of it.

    Do nothing if another process has downloaded it in the meantime.
    """
    with contextlib.suppress(Exception):
        make(root, download=False)
        return
    part = root / DOWNLOAD_FOLDER
    # Leftovers of a killed process
    shutil.rmtree(part, ignore_errors=True)
    _use_private_bar_lock()
    try:
        with _socket_timeout(_TIMEOUT), _safe_extraction():
            make(part, download=True)
        _fsync_files(part)
        for item in part.iterdir():
            old = root / item.name
            if old.is_dir():
                # An undamaged folder would have been opened above
                shutil.rmtree(old)
            os.replace(item, old)  # noqa: PTH105
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_leftovers(part: Path) -> None:
    """Remove what a killed download left, unless another download is running."""
    if part.exists():
        with _try_lock(part.parent) as free:
            if free:
                shutil.rmtree(part, ignore_errors=True)


def _use_private_bar_lock() -> None:
    """Give the download's progress bar a lock of its own: forks share tqdm's, and a killed one would hold it."""
    # torchvision uses this module's bar, a dummy if tqdm is not installed
    from torch import hub

    bar: Any = vars(hub)["tqdm"]
    if hasattr(bar, "set_lock"):
        bar.set_lock(threading.RLock())


def _fsync_files(folder: Path) -> None:
    """Flush all files below a folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def _safe_extraction() -> Iterator[None]:
    """Reject archive members outside the target folder, which older torchvision versions do not (PEP 706)."""
    # New in Python 3.11.4
    before = vars(tarfile.TarFile).get("extraction_filter")
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a socket timeout in seconds within the context; torchvision would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, created if missing; a killed process releases it (flock).

    A line on standard error reports waiting. If the folder was removed while waiting, it is created again.

    Raises:
        OSError: The folder cannot be created or locked.
    """
    import fcntl

    path = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.stderr.write(f"waiting for another process that prepares {folder}\n")
                sys.stderr.flush()
                fcntl.flock(file, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue
            yield
            return


@contextlib.contextmanager
def _try_lock(folder: Path) -> Iterator[bool]:
    """Yield true and hold a folder's lock if no other process does; else yield false, without waiting."""
    import fcntl

    with contextlib.ExitStack() as held:
        try:
            fcntl.flock(held.enter_context((folder / ".lock").open("r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
