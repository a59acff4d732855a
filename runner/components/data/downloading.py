"""A download that never leaves half of itself: into a folder of its own, then to its place, one process at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner.components.data.locking import at_leisure

Open = Callable[..., Any]  # (root, download=...) -> a torchvision data set
PART = ".download"  # where a download is until it is whole
PATIENCE = 60.0  # seconds without a byte, after which a download is given up


def fetch(make: Open, root: Path) -> None:
    """Download into a folder of its own and move what came into `root`, so that `root` never holds half of it.

    Another process may have done it while this one waited for the lock.
    """
    with contextlib.suppress(Exception):
        make(root, download=False)
        return
    part = root / PART
    shutil.rmtree(part, ignore_errors=True)  # what a killed process left
    own_lock()
    try:
        with patience(PATIENCE), inside():
            make(part, download=True)
        sync(part)
        for item in part.iterdir():
            old = root / item.name
            if old.is_dir():
                shutil.rmtree(old)  # damaged, or it would have been opened
            os.replace(item, old)  # noqa: PTH105
    finally:
        shutil.rmtree(part, ignore_errors=True)


def clear(part: Path) -> None:
    """Remove what a download left that was killed after all was in place, unless another is under way."""
    if part.exists():
        with at_leisure(part.parent) as free:
            if free:
                shutil.rmtree(part, ignore_errors=True)


def own_lock() -> None:
    """Let a download's bar ask no other process: tqdm's lock is shared with all forks, and one killed would hold it."""
    from torch import hub  # whose bar torchvision draws; a dummy where tqdm is not installed

    bar: Any = vars(hub)["tqdm"]
    if hasattr(bar, "set_lock"):
        bar.set_lock(threading.RLock())


def sync(folder: Path) -> None:
    """Return when all files below a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """Refuse files of an archive that would lie outside its folder, which older torchvisions do not (PEP 706)."""
    before = vars(tarfile.TarFile).get("extraction_filter")  # Python 3.11.4 brought it
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Give up on a server that says nothing for so long; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
