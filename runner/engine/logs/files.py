"""The log files of a run: a full disk does not lose rows, and a resumed run truncates them to its checkpoint."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner import user_paths
from runner.engine.logs.event_file import FILE_NAME, event_files
from runner.engine.logs.sinks import METRICS, AppendOnlyFile, LogFile, Row
from runner.engine.saving import storage
from runner.errors import CheckpointError
from runner.printing import write_stderr

# Bytes of one file that may be kept in memory while the disk is full.
MAX_BACKLOG = 64 << 20


class LogFiles:
    """The sinks whose files are part of the state of a run.

    A full or failing disk does not end the run. It prints a warning, and bytes that cannot be written stay in memory
    (the backlog). They are written before the next rows, and a checkpoint stores them.

    Args:
        sinks: The files that this session writes.
        lengths: The length in bytes of the files of earlier sessions, by name.
    """

    def __init__(self, sinks: Sequence[LogFile] = (), lengths: Mapping[str, int] | None = None) -> None:
        self.sinks = list(sinks)
        self._lengths = dict(lengths or {})
        self._behind: set[Path] = set()  # files with a backlog

    def write(self, rows: Sequence[Row]) -> None:
        """Append the backlog and the rows to each file.

        Raises:
            StorageError: The disk is full or fails, and a backlog exceeds `MAX_BACKLOG`.
        """
        for sink in self.sinks if rows or self._behind else ():
            self._write(sink, rows)

    def sync(self) -> dict[str, int]:
        """Wait until all written bytes are on the disk; return the length of each file in bytes, by name.

        Raises:
            StorageError: A file was removed or replaced, or the disk fails.
        """
        for sink in self.sinks:
            with storage.convert_os_errors(sink.file.path):
                self._lengths[sink.file.path.name] = sink.file.sync()
        return dict(self._lengths)

    def backlogs(self) -> dict[str, Tensor]:
        """Return the backlog (n,) uint8 of each file that has one, by name."""
        files = [sink.file for sink in self.sinks if sink.file.backlog]
        return {file.path.name: torch.from_numpy(np.frombuffer(file.backlog, np.uint8).copy()) for file in files}

    def write_backlogs(self) -> None:
        """Write the backlogs; raise StorageError if that fails."""
        for sink in self.sinks:
            with storage.convert_os_errors(sink.file.path):
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
                raise storage.to_storage_error(path, error) from error
            if path not in self._behind:
                _warn(f"{storage.to_storage_error(path, error)}; the run continues and keeps the log in memory")
            self._behind.add(path)
        else:
            if path in self._behind:
                _warn(f"{storage.printable(path)}: can be written again; no rows were lost")
            self._behind.discard(path)


def truncate_logs(folder: Path, positions: Mapping[str, int], backlogs: Mapping[str, Any]) -> dict[str, int]:
    """Restore the log files of a run folder to a checkpoint, so that a resumed run does not log a step twice.

    Args:
        folder: The run folder.
        positions: The length of each file in bytes, by name. Log files that are not listed are deleted.
        backlogs: The backlog (n,) uint8 of files that had one, by name. It is appended.

    Returns:
        The new length of each file in bytes, by name.

    Raises:
        CheckpointError: A file is missing or shorter than at the checkpoint. No file was changed.
    """
    for name, length in positions.items():
        check_log(folder, name, length)
    for name, data in backlogs.items():
        if name not in positions or not isinstance(data, Tensor):
            raise CheckpointError(f"the checkpoint has a backlog of {name!r}, which is not one of its log files")
    for name in {METRICS, *event_files(folder)} - set(positions):
        storage.remove(folder / name)
    for name, length in positions.items():
        storage.truncate(folder / name, length)
    completed = {name: _append(folder / name, data) for name, data in backlogs.items()}
    return {**positions, **completed}


def check_log(folder: Path, name: str, length: int) -> None:
    """Raise CheckpointError unless `name` is a log file of at least `length` bytes."""
    path = folder / name
    if name != METRICS and not FILE_NAME.fullmatch(name):
        raise CheckpointError(f"the checkpoint lists the log file {name!r}; expected {METRICS} or an event file")
    found = user_paths.status(path, error=CheckpointError)
    if found is None or not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: missing; the checkpoint expects {length} bytes")
    if found.st_size < length:
        raise CheckpointError(f"{path}: has {found.st_size} bytes; the checkpoint expects {length}")


def _append(path: Path, data: Tensor) -> int:
    """Append bytes (n,) uint8 to a file durably; return its length."""
    file = AppendOnlyFile(path)
    try:
        with storage.convert_os_errors(path):
            file.append(data.numpy().tobytes())
            return file.sync()
    finally:
        file.close()


def _warn(line: str) -> None:
    """Print a warning to standard error."""
    write_stderr(f"runner: warning: {line}\n")
