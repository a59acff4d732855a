"""Hands rows to a log file, whatever the disk says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from runner.engine.logs.sinks import LogFile, Row
from runner.engine.saving import storage

MOST = 64 << 20  # bytes that a log file may owe: what the disk has not taken waits in memory


def deliver(sink: LogFile, rows: Sequence[Row], late: set[Path]) -> None:
    """Write rows to a file, and whatever it owes; what the disk does not take is told of once, and owed.

    `late` holds the files that owe something. Raises StorageError for one that owes too much.
    """
    path = sink.file.path
    try:
        sink.write(rows)
    except OSError as error:
        if len(sink.file.owed) > MOST:
            raise storage.refusal(path, error) from error
        if path not in late:
            warn(f"{storage.refusal(path, error)}; the run goes on, and the log waits in memory")
        late.add(path)
    else:
        if path in late:
            warn(f"{storage.shown(path)}: written again, nothing is missing")
        late.discard(path)


def warn(line: str) -> None:
    """Tell of something that does not end the run."""
    sys.stderr.write(f"runner: warning: {line}\n")
