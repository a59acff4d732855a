"""Logs as they were at a checkpoint, byte for byte: a resumed run repeats no step in them, and lacks none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.engine.logs.event_file import FORM, event_files
from runner.engine.logs.growing import Growing
from runner.engine.logs.sinks import METRICS
from runner.engine.saving import storage
from runner.errors import CheckpointError


def cut_back(folder: Path, positions: Mapping[str, int], owed: Mapping[str, Any]) -> dict[str, int]:
    """Cut the logs in a run folder to the bytes they held, append what they owed, and return what they hold then.

    Logs that are not among them are deleted. Raises CheckpointError, before anything is changed, where a file is
    missing or shorter than it was.
    """
    for name, length in positions.items():
        check(folder, name, length)
    for name, data in owed.items():
        if name not in positions or not isinstance(data, Tensor):
            raise CheckpointError(f"the checkpoint says that {name!r} lacks something, which is no log of it")
    for name in {METRICS, *event_files(folder)} - set(positions):
        storage.remove(folder / name)
    for name, length in positions.items():
        storage.truncate(folder / name, length)
    paid = {name: pay(folder / name, data) for name, data in owed.items()}
    return {**positions, **paid}


def check(folder: Path, name: str, length: int) -> None:
    """Raise CheckpointError where a name is not that of a log, or its file cannot be cut to a length that it had."""
    path = folder / name
    if name != METRICS and not FORM.fullmatch(name):
        raise CheckpointError(f"the checkpoint names {name!r} as a log, which it is not")
    if not path.is_file():
        raise CheckpointError(f"{path}: missing, and the checkpoint says that it held {length} bytes")
    if path.stat().st_size < length:
        raise CheckpointError(f"{path}: holds {path.stat().st_size} bytes, and the checkpoint says {length}")


def pay(path: Path, data: Tensor) -> int:
    """Append what a log owed (n,) uint8, durably, and return the bytes that it holds then."""
    file = Growing(path)
    try:
        with storage.refusing(path):
            file.append(data.numpy().tobytes())
            return file.sync()
    finally:
        file.close()
