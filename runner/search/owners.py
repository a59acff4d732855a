"""The sweeps of a shared study: another one runs the points of a sweep that has ended.

A sweep is known by the random word in its folder. Where its folder can be seen, the folder's lock shows whether it
runs, else the time that it writes into the study every minute.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.engine.saving.held import LOCK
from runner.engine.saving.storage import write_atomic
from runner.user_paths import full

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_FILE = ".study-owner"
_ATTRIBUTE = "runner alive"
_BEAT = 60.0
# Seconds without a sign of life after which a sweep on another machine counts as ended
_PATIENCE = 300.0


def owner_of(folder: Path) -> str:
    """Return the word that names a sweep in a shared study; it is made once, and stays when the folder is moved."""
    found = _read(folder)
    if found is None:
        found = uuid.uuid4().hex[:12]
        write_atomic(folder / _FILE, found.encode())
    return found


def has_ended(owner: str, folder: str, attributes: Mapping[str, Any]) -> bool:
    """Return True if a sweep has certainly ended.

    Args:
        owner: Its word.
        folder: Its folder, on its machine.
        attributes: Those of the study.

    """
    if _read(Path(folder)) == owner:
        return not _is_locked(Path(folder))
    beat = attributes.get(f"{_ATTRIBUTE} {owner}")
    return isinstance(beat, (int, float)) and time.time() - beat > _PATIENCE


def _read(folder: Path) -> str | None:
    """Return the word in a folder, None if there is none."""
    try:
        return Path(full(folder / _FILE)).read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _is_locked(folder: Path) -> bool:
    """Return True if a process holds the lock of a folder, or if that is unknown."""
    try:
        file = os.open(full(folder / LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def sign_of_life(storage: BaseStorage, study: int, owner: str) -> None:
    """Write the time into a study, so that the sweep of this owner counts as running for some minutes."""
    storage.set_study_user_attr(study, f"{_ATTRIBUTE} {owner}", round(time.time()))


class Heartbeat:
    """Writes the time into a study every minute, in a thread of its own, since a launcher may block for hours."""

    def __init__(self, storage: BaseStorage, study: int, owner: str) -> None:
        self._storage, self._study, self._key = storage, study, f"{_ATTRIBUTE} {owner}"
        self._ended = threading.Event()
        self._write(time.time())
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and tell the other sweeps that this one has ended."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self._write(0)

    def _run(self) -> None:
        while not self._ended.wait(_BEAT):
            self._write(time.time())

    def _write(self, value: float) -> None:
        try:
            self._storage.set_study_user_attr(self._study, self._key, round(value))
        except Exception:
            # The search itself reports what is wrong with its storage; a missed minute is harmless
            return
