"""Atomic downloads, and folder locks between processes.

A download goes to a folder of its own and is then moved, by one process at a time, so that a killed one leaves nothing.
No file of the user is removed: the download is merged file by file, and an earlier file of the same name is kept.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import itertools
import os
import shutil
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner.engine.saving.storage import printable
from runner.errors import escaped
from runner.printing import write_stderr
from runner.user_paths import exists, full

# (root, download=...) -> torchvision data set
OpenDataset = Callable[..., Any]
# Holds a download until it is complete; no user has a folder of this name, because it is removed
DOWNLOAD_FOLDER = ".runner-download"
# Seconds without data before a download is aborted
_TIMEOUT = 60.0


def download_into(make: OpenDataset, root: Path) -> None:
    """Download to a temporary folder and move its files into `root`, so that `root` never holds half a file.

    Do nothing if another process has downloaded it in the meantime.

    Raises:
        FileExistsError: Something that is no file is where a file must go, or no folder where a folder must go.
    """
    with contextlib.suppress(Exception):
        make(root, download=False)
        return
    root = Path(full(root))
    part = root / DOWNLOAD_FOLDER
    # Leftovers of a killed process
    shutil.rmtree(part, ignore_errors=True)
    use_private_bar_lock()
    try:
        with socket_timeout(_TIMEOUT), _safe_extraction():
            make(part, download=True)
        _fsync_files(part)
        _merge(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _merge(part: Path, root: Path) -> None:
    """Move all files of a download into `root`, into the folders that are there already."""
    moves = [(file, root / file.relative_to(part)) for file in sorted(part.rglob("*")) if not file.is_dir()]
    for _, target in moves:
        _check_place(target, root)
    for file, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            if target.is_file() and filecmp.cmp(file, target, shallow=False):
                continue
            _keep_earlier(target)
        _move(file, target)


def _check_place(target: Path, root: Path) -> None:
    """Raise FileExistsError if a file cannot be put at `target`, because of what stands there or above it."""
    above = [folder for folder in target.parents if folder.is_relative_to(root)]
    wrong = [folder for folder in above if os.path.lexists(folder) and not folder.is_dir()]
    if os.path.lexists(target) and not target.is_file() and not target.is_symlink():
        wrong.append(target)
    if wrong:
        raise FileExistsError(f"{printable(wrong[-1])} is in the way; move it, or choose another data.root")


def _keep_earlier(target: Path) -> None:
    """Rename a file that the download replaces: it may be the user's own."""
    names = (f"{target.name}.old{number or ''}" for number in itertools.count())
    kept = next(path for path in map(target.with_name, names) if not os.path.lexists(path))
    target.rename(kept)
    write_stderr(f"runner: {printable(target)}: differs from the download's file; kept as {escaped(kept.name)}\n")


def _move(file: Path, target: Path) -> None:
    """Move a file to a path that is free, also to another file system, where a link of the user may lead."""
    try:
        os.replace(file, target)  # noqa: PTH105
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        half = target.with_name(f"{target.name}{DOWNLOAD_FOLDER}")
        try:
            shutil.copyfile(file, half)
            _fsync(half)
            os.replace(half, target)  # noqa: PTH105
        finally:
            half.unlink(missing_ok=True)


def remove_leftovers(part: Path) -> None:
    """Remove what a killed download left, unless another download is running."""
    part = Path(full(part))
    if exists(part):
        with _try_lock(part.parent) as free:
            if free:
                shutil.rmtree(part, ignore_errors=True)


def use_private_bar_lock() -> None:
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
            _fsync(path)


def _fsync(path: Path) -> None:
    """Flush a file to disk."""
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
def socket_timeout(seconds: float) -> Iterator[None]:
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

    path = Path(full(folder)) / ".lock"
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Mode "w" would empty a file of the user that has this name
        with contextlib.suppress(FileNotFoundError), path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                write_stderr(f"waiting for another process that prepares {printable(folder)}\n")
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
