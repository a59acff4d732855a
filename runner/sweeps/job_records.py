"""The jobs that a sweep submitted to a scheduler, kept in its folder so that the same command finds them again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from runner.engine.saving import storage
from runner.user_paths import full, relative

_FILE = "submitted.jsonl"
_LIMIT = 1 << 26


class _Record(NamedTuple):
    """A job of a scheduler and the folder of its run, relative to the sweep."""

    scheduler: str
    job: str
    folder: str


class JobRecords:
    """The file with one line per submitted job; of a run that was submitted several times the last one counts."""

    def __init__(self, sweep: Path) -> None:
        self._sweep, self._path = sweep, sweep / _FILE
        self._known = {each.folder: each for each in _read(self._path)}

    def find(self, scheduler: str, folder: Path) -> str | None:
        """Return the last job of a run, None if there is none."""
        known = self._known.get(self._name(folder))
        return known.job if known and known.scheduler == scheduler else None

    def jobs(self, scheduler: str, *, without: Iterable[str]) -> list[str]:
        """Return the last jobs of the runs, without those of some folders."""
        leave = {self._name(Path(folder)) for folder in without}
        return [each.job for name, each in self._known.items() if each.scheduler == scheduler and name not in leave]

    def add(self, scheduler: str, jobs: Iterable[tuple[str, Path]]) -> None:
        """Append jobs, each with the folder of its run."""
        new = [_Record(scheduler, job, self._name(folder)) for job, folder in jobs]
        lines = "".join(f"{json.dumps(each._asdict())}\n" for each in new)
        with storage.convert_os_errors(self._path), Path(full(self._path)).open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        self._known.update((each.folder, each) for each in new)

    def _name(self, folder: Path) -> str:
        return relative(folder, self._sweep)


def _read(path: Path) -> list[_Record]:
    """Return the records of a file; a line that a full disk or a power cut left incomplete is none."""
    try:
        lines = storage.read(path, _LIMIT).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_Record(**{key: str(value) for key, value in json.loads(line).items()}))
        except (ValueError, TypeError, AttributeError):
            continue
    return found
