"""One process at a time in a folder; the others wait."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be, against other processes; a killed process lets go (flock).

    Says so on standard error where it has to wait; who waited for a folder that was then removed makes it again.
    Raises OSError where the folder cannot be made or locked.
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
def at_leisure(folder: Path) -> Iterator[bool]:
    """Hold a folder if no other process does, without waiting, and tell whether that is so."""
    import fcntl

    with contextlib.ExitStack() as held:
        try:
            fcntl.flock(held.enter_context((folder / ".lock").open("r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
