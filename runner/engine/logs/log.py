"""The log of a run: collects values without waiting for the device, and writes them as rows to its sinks."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.engine.logs.buffer import Buffer, Transfer
from runner.engine.logs.derived import Derived
from runner.engine.logs.event_file import EventFile, is_available, next_name
from runner.engine.logs.files import LogFiles, truncate_logs
from runner.engine.logs.sinks import METRICS, JsonLines, LogFile, Row, Sink
from runner.engine.monitor import Monitor
from runner.engine.saving import storage
from runner.errors import CheckpointError, ConfigError, Locked, StorageError

_Tick = Callable[[int, Mapping[str, Any]], None]
# Minimum time in seconds between two flushes by `flush_if_due`. More flushes would slow the training of small models
# by several percent.
_MIN_FLUSH_INTERVAL = 0.5


class Log:
    """Buffers values on the device; writes them as rows, with derived numbers, at each flush.

    All values of a step form one row, even if `flush` is called in between: the row of the last step stays open until a
    later step, a checkpoint or the end of the log. Therefore nothing may be logged for a step after its checkpoint.

    A log without sinks stores only the latest number of each tag.

    Args:
        files: Sinks whose files are part of the state of the run (`LogFiles`).
        screens: Other sinks. They get each row before the files do.
        lengths: The length in bytes of the files of earlier sessions, by name.
        transfer: Copies the values to the host; logs of runs that train together share one.
        ticks: Get the values of each step at once, on their device, for what moves on a screen.
        scores: Scores besides accuracy, loss and nll of validations whose best values are logged, too.
    """

    def __init__(
        self,
        files: Sequence[LogFile] = (),
        screens: Sequence[Sink] = (),
        lengths: Mapping[str, int] | None = None,
        transfer: Transfer | None = None,
        ticks: Sequence[_Tick] = (),
        scores: Sequence[Monitor] = (),
    ) -> None:
        self._ticks, self._scores = ticks, scores
        self.files, self.screens = LogFiles(files, lengths), list(screens)
        self._buffer = Buffer(transfer or Transfer())
        self._open: Row | None = None
        self._keep_open = False
        self._flushed = -math.inf
        self._derived = Derived(scores=scores)
        self._latest: dict[str, float] = {}

    @property
    def has_event_file(self) -> bool:
        """True if values reach TensorBoard."""
        return any(isinstance(file, EventFile) for file in self.files.sinks)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add values of a step; costs one append to a list.

        Args:
            step: The number of optimizer steps done.
            values: The values by tag: tensors and `Numbers` on the device, which are detached and do not change later;
                or numbers, Markdown texts, PNG bytes and TensorBoard summaries.
        """
        self._buffer.add(step, values)
        for tick in self._ticks:
            tick(step, values)

    def latest(self, tag: str) -> float | None:
        """Return the latest number of a tag, or None; may wait for the device."""
        number = self._buffer.latest(tag)
        return self._latest.get(tag) if number is None else number

    def flush_if_due(self) -> None:
        """Flush, unless the last flush was less than `_MIN_FLUSH_INTERVAL` ago."""
        if time.monotonic() - self._flushed >= _MIN_FLUSH_INTERVAL:
            self.flush()

    def flush(self) -> dict[str, float]:
        """Copy the values to the host and write all rows except the open one; return the latest number of each tag."""
        rows = [] if self._open is None else [self._open]
        for step, added, values in self._buffer.take():
            if not rows or rows[-1].step != step:
                rows.append(Row(step, added, {}))
            self._derived.extend(values)
            _add_to_row(rows[-1], values)
        self._remember(rows)
        self._open = rows.pop() if rows else None
        self._write(rows)
        self._flushed = time.monotonic()
        return dict(self._latest)

    def discard(self, after: int) -> None:
        """Drop the values of all steps later than `after`, unless they were flushed already."""
        self._buffer.discard(after)

    def keep_row_open(self) -> None:
        """Keep the last row open at the next checkpoint, which stores it, so that a resumed run can add values to it.

        Nothing may be logged for a later step.
        """
        self._keep_open = True

    def positions(self) -> dict[str, int]:
        """Write all rows, wait until they are on the disk, and return the length of each file in bytes, by name.

        Rows that cannot be written are in the next `state_dict`.
        """
        self._write_all()
        return self.files.sync()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs besides the files at their last `positions`."""
        row = {} if self._open is None else {**self._open._asdict(), "values": _as_tensors(self._open.values)}
        return {"derived": self._derived.state_dict(), "owed": self.files.backlogs(), "held": row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore derived numbers and the open row; `open_logs` restores the files."""
        self._derived = Derived(state["derived"], self._scores)
        if row := state["held"]:
            self._open = Row(row["step"], row["time"], _as_arrays(row["values"]))

    def close(self) -> None:
        """Write the remaining rows and close the files.

        Raises:
            StorageError, Locked: The rows cannot be written. It is not raised while another exception is being
                handled, because it would hide that one.
        """
        handling_exception = sys.exception() is not None
        self._keep_open = False
        try:
            with suppress(StorageError, Locked) if handling_exception else nullcontext():
                self._write_all()
            if not handling_exception:
                self.files.write_backlogs()
        finally:
            self._buffer.close()
            for sink in self.screens:
                sink.close()
            self.screens = []
            self.files.close()

    def _remember(self, rows: Sequence[Row]) -> None:
        """Store the latest number of each tag."""
        latest: dict[str, Any] = {}
        for row in rows:
            latest.update(row.values)
        self._latest.update({tag: value for tag, value in latest.items() if type(value) is float})

    def _write_all(self) -> None:
        """Flush, and write the open row unless it must stay open."""
        self.flush()
        if not self._keep_open and self._open is not None:
            last, self._open = self._open, None
            self._write([last])

    def _write(self, rows: Sequence[Row]) -> None:
        """Write rows to all sinks."""
        for screen in self.screens if rows else ():
            screen.write(rows)
        self.files.write(rows)


def open_logs(
    folder: Path,
    *,
    positions: Mapping[str, int] | None,
    step: int,
    state: Mapping[str, Any] | None = None,
    screens: Sequence[Sink] = (),
    transfer: Transfer | None = None,
    ticks: Sequence[_Tick] = (),
    scores: Sequence[Monitor] = (),
) -> Log:
    """Open the logs of a run folder; a resumed run restores them to its checkpoint, and adds a new event file.

    Args:
        folder: The run folder.
        positions: `Log.positions` of the checkpoint; None for a new run.
        step: The number of optimizer steps done.
        state: `Log.state_dict` of the checkpoint.
        screens: Other sinks that get each row (`console.Console`).
        transfer: Shared by the logs of runs that train together.
        ticks: As for `Log`.
        scores: As for `Log`.

    Raises:
        CheckpointError: A file is missing or shorter than at the checkpoint. No file was changed.
    """
    state = Log().state_dict() if state is None else {"held": {}, **state}
    if state.keys() != {"derived", "owed", "held"} or not all(isinstance(part, dict) for part in state.values()):
        raise CheckpointError("the checkpoint's state of the log is malformed")
    lengths = truncate_logs(folder, positions or {}, state["owed"])
    files: list[LogFile] = [JsonLines(folder / METRICS)]
    if is_available():
        files.append(EventFile(folder / next_name(folder), step + 1 if positions else 0))
    with storage.convert_os_errors(folder):
        storage.disk.fsync_folder(folder)
    log = Log(files, screens, lengths, transfer, ticks, scores)
    log.load_state_dict(state)
    return log


def _add_to_row(row: Row, values: Mapping[str, Any]) -> None:
    """Add values to a row; raises ConfigError for a second value of a tag, which would replace the first."""
    if twice := row.values.keys() & values.keys():
        raise ConfigError(f"probe: '{min(twice)}' is logged twice in step {row.step}; a probe needs tags of its own")
    row.values.update(values)


def _as_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as a checkpoint stores them, with arrays as tensors."""
    return {tag: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for tag, v in values.items()}


def _as_arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row from a checkpoint, with tensors as arrays."""
    return {tag: v.numpy() if isinstance(v, Tensor) else v for tag, v in values.items()}
