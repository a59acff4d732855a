"""The log files of a run: written even when the disk is full, cut back to a checkpoint when a run resumes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.engine.logs.event_file import FORM, event_files
from runner.engine.logs.sinks import METRICS, AppendOnlyFile, LogFile, Row
from runner.engine.saving import storage
from runner.errors import CheckpointError

# Bytes of one file that may wait in memory for a disk that takes no more.
MAX_BACKLOG = 64 << 20


class LogFiles:
    """Sinks whose files are part of the state of a run.

    A full or failing disk does not end the run: a warning says so, the rest waits in memory, is tried again with the
    next rows, and is part of a checkpoint.

    Args:
        sinks: The files that this session writes.
        lengths: Bytes of the files of earlier sessions, by name.
    """

    def __init__(self, sinks: Sequence[LogFile] = (), lengths: Mapping[str, int] | None = None) -> None:
        self.sinks = list(sinks)
        self._lengths = dict(lengths or {})
        self._behind: set[Path] = set()  # files with a backlog

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows to each file, and its backlog first.

        Raises:
            StorageError: A backlog is larger than `MAX_BACKLOG`.
        """
        for sink in self.sinks if rows or self._behind else ():
            self._write(sink, rows)

    def sync(self) -> dict[str, int]:
        """Wait until all but the backlogs is on the disk; return the bytes of each file by name.

        Raises:
            StorageError: A file is gone or the disk fails.
        """
        for sink in self.sinks:
            with storage.refusing(sink.file.path):
                self._lengths[sink.file.path.name] = sink.file.sync()
        return dict(self._lengths)

    def backlogs(self) -> dict[str, Tensor]:
        """Return the bytes (n,) uint8 that each file lacks, by name."""
        files = [sink.file for sink in self.sinks if sink.file.backlog]
        return {file.path.name: torch.from_numpy(np.frombuffer(file.backlog, np.uint8).copy()) for file in files}

    def write_backlogs(self) -> None:
        """Write what the files lack; StorageError if the disk does not take it."""
        for sink in self.sinks:
            with storage.refusing(sink.file.path):
                sink.file.append(b"")

    def close(self) -> None:
        """Close the files."""
        for sink in self.sinks:
            sink.close()
        self.sinks = []

    def _write(self, sink: LogFile, rows: Sequence[Row]) -> None:
        path = sink.file.path
        try:
            sink.write(rows)
        except OSError as error:
            if len(sink.file.backlog) > MAX_BACKLOG:
                raise storage.refusal(path, error) from error
            if path not in self._behind:
                _warn(f"{storage.refusal(path, error)}; the run goes on, and the log waits in memory")
            self._behind.add(path)
        else:
            if path in self._behind:
                _warn(f"{storage.shown(path)}: written again, nothing is missing")
            self._behind.discard(path)


def truncate_logs(folder: Path, positions: Mapping[str, int], backlogs: Mapping[str, Any]) -> dict[str, int]:
    """Restore the log files of a run folder as they were at a checkpoint, so that a resumed run repeats no step.

    Args:
        folder: The run folder.
        positions: Bytes that each file held, by name; log files that are not among them are deleted.
        backlogs: Bytes (n,) uint8 that a file lacked, by name; they are appended.

    Returns:
        The bytes that each file holds now, by name.

    Raises:
        CheckpointError: A file is missing or shorter than it was; nothing is changed then.
    """
    for name, length in positions.items():
        check_log(folder, name, length)
    for name, data in backlogs.items():
        if name not in positions or not isinstance(data, Tensor):
            raise CheckpointError(f"the checkpoint says that {name!r} lacks something, which is no log of it")
    for name in {METRICS, *event_files(folder)} - set(positions):
        storage.remove(folder / name)
    for name, length in positions.items():
        storage.truncate(folder / name, length)
    completed = {name: _append(folder / name, data) for name, data in backlogs.items()}
    return {**positions, **completed}


def check_log(folder: Path, name: str, length: int) -> None:
    """Raise CheckpointError unless a name is that of a log file that holds at least `length` bytes."""
    path = folder / name
    if name != METRICS and not FORM.fullmatch(name):
        raise CheckpointError(f"the checkpoint names {name!r} as a log, which it is not")
    if not path.is_file():
        raise CheckpointError(f"{path}: missing, and the checkpoint says that it held {length} bytes")
    if path.stat().st_size < length:
        raise CheckpointError(f"{path}: holds {path.stat().st_size} bytes, and the checkpoint says {length}")


def _append(path: Path, data: Tensor) -> int:
    """Append bytes (n,) uint8 to a file, durably; return its size."""
    file = AppendOnlyFile(path)
    try:
        with storage.refusing(path):
            file.append(data.numpy().tobytes())
            return file.sync()
    finally:
        file.close()


def _warn(line: str) -> None:
    """Write a warning to standard error."""
    sys.stderr.write(f"runner: warning: {line}\n")
