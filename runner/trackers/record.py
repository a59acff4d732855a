"""`trackers.json` in a run folder: the id of each tracker's run, and the last step that it has acknowledged."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.engine.saving import storage
from runner.errors import CheckpointError, Locked

_RECORD = "trackers.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class _Entry:
    """The state of one tracker.

    Attributes:
        id: The id of the tracker's run, None before its first session.
        step: The last step whose row it has, -1 for none.
        finished: True if it knows the end of a run that has nothing left to train.
    """

    id: str | None = None
    step: int = -1
    finished: bool = False


class Record:
    """The entries of all trackers of a run, by name; several threads may change them.

    Args:
        folder: The run folder, which this process has locked.

    Raises:
        CheckpointError: The file is malformed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _RECORD
        self._lock = threading.Lock()
        self._closed = False
        self._entries = _read(self._path)

    def entry(self, name: str) -> _Entry:
        """Return the entry of a tracker."""
        return self._entries.get(name, _Entry())

    def change(self, name: str, **values: Any) -> None:
        """Change values of an entry, and write the file atomically.

        Raises:
            Locked: The run folder no longer belongs to this process.
            StorageError: The file cannot be written.
        """
        with self._lock:
            if self._closed:
                raise Locked(f"{self._path}: the run has ended")
            self._entries[name] = replace(self.entry(name), **values)
            content = {each: asdict(entry) for each, entry in self._entries.items()}
            storage.write_atomic(self._path, json.dumps(content, indent=1).encode())

    def close(self) -> None:
        """Write no more: the lock of the run folder will be released."""
        with self._lock:
            self._closed = True


def _read(path: Path) -> dict[str, _Entry]:
    """Return the entries in a file, none if there is none; raises CheckpointError if it is malformed."""
    if not user_paths.exists(path, error=CheckpointError):
        return {}
    try:
        content = json.loads(storage.read(path, _MOST_BYTES))
        entries = {str(name): _Entry(**values) for name, values in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{storage.printable(path)}: is malformed; remove it to send all rows again") from error
    if not all(_is_sound(entry) for entry in entries.values()):
        raise CheckpointError(f"{storage.printable(path)}: is malformed; remove it to send all rows again")
    return entries


def _is_sound(entry: _Entry) -> bool:
    return isinstance(entry.id, str | None) and type(entry.step) is int and type(entry.finished) is bool
