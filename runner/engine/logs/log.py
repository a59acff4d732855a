"""The log of a run: collects values without waiting for the device, and writes them as rows to screens and files."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.engine.logs.buffer import Buffer, Transfer
from runner.engine.logs.derived import Derived
from runner.engine.logs.event_file import EventFile, next_name
from runner.engine.logs.files import LogFiles, truncate_logs
from runner.engine.logs.sinks import METRICS, JsonLines, LogFile, Row, Sink
from runner.engine.saving import storage
from runner.errors import CheckpointError

# At least so many seconds lie between two flushes of `keep_up`; more flushes would cost small models several percent.
_PAUSE = 0.5


class Log:
    """Buffer values on the device; write them as rows, with derived numbers, to screens and files at each flush.

    All values of one step form one row, however often `flush` is called: the last step's row stays open until a later
    step, a checkpoint or the end closes it. So nothing may be logged for a step after its checkpoint.

    Without arguments it is a log in memory, which stores only the latest number of each tag.

    Args:
        files: Sinks whose files are part of the state of the run (`LogFiles`).
        screens: Other sinks, which get each row first.
        lengths: Bytes of the files of earlier sessions, by name.
        transfer: Brings the values to the host; logs of runs that train together share one.
    """

    def __init__(
        self,
        files: Sequence[LogFile] = (),
        screens: Sequence[Sink] = (),
        lengths: Mapping[str, int] | None = None,
        transfer: Transfer | None = None,
    ) -> None:
        self.files, self.screens = LogFiles(files, lengths), list(screens)
        self._buffer = Buffer(transfer or Transfer())
        self._open: Row | None = None
        self._keep_open = False
        self._flushed = -math.inf
        self._derived = Derived()
        self._latest: dict[str, float] = {}

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add values of a step (1 is the first); costs no more than an append.

        Args:
            step: Optimizer steps done.
            values: By tag: tensors and `Numbers` on the device, detached and never changed later; or host values:
                numbers, texts in Markdown, PNG bytes, TensorBoard summaries.
        """
        self._buffer.add(step, values)

    def latest(self, tag: str) -> float | None:
        """Return the last number of a tag, None if there is none; may wait for the device."""
        found = self._buffer.latest(tag)
        return self._latest.get(tag) if found is None else found

    def keep_up(self) -> None:
        """Flush, unless the last flush was less than `_PAUSE` ago."""
        if time.monotonic() - self._flushed >= _PAUSE:
            self.flush()

    def flush(self) -> dict[str, float]:
        """Write all rows but the open one to screens and files, after one transfer; return each tag's latest number."""
        rows = [] if self._open is None else [self._open]
        for step, moment, values in self._buffer.take():
            if not rows or rows[-1].step != step:
                rows.append(Row(step, moment, {}))
            self._derived.extend(values)
            rows[-1].values.update(values)
        self._remember(rows)
        self._open = rows.pop() if rows else None
        self._write(rows)
        self._flushed = time.monotonic()
        return dict(self._latest)

    def forget(self, after: int) -> None:
        """Drop the values of all steps after a step that were added since the last flush."""
        self._buffer.discard(after)

    def hold(self) -> None:
        """Keep the last row open through the next checkpoint, which stores it, so that a resumed run completes it.

        Nothing may be logged for a later step.
        """
        self._keep_open = True

    def positions(self) -> dict[str, int]:
        """Write all rows, wait until they are on the disk, and return the bytes of each file by name.

        A later `state_dict` contains the rows that could not be written.
        """
        self._finish()
        return self.files.sync()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the files at their last `positions`."""
        row = {} if self._open is None else {**self._open._asdict(), "values": _as_tensors(self._open.values)}
        return {"derived": self._derived.state_dict(), "owed": self.files.backlogs(), "held": row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore derived numbers and an open row; `open_logs` restores the files."""
        self._derived = Derived(state["derived"])
        if row := state["held"]:
            self._open = Row(row["step"], row["time"], _as_arrays(row["values"]))

    def close(self) -> None:
        """Write the remaining rows and close the files.

        Raises:
            StorageError: The rows cannot be written, and no other exception is being handled.
        """
        failing = sys.exception() is not None
        self._keep_open = False
        try:
            self._finish()
            if not failing:
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

    def _finish(self) -> None:
        """Flush, and write the open row unless it is held."""
        self.flush()
        if not self._keep_open and self._open is not None:
            last, self._open = self._open, None
            self._write([last])

    def _write(self, rows: Sequence[Row]) -> None:
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
) -> Log:
    """Open the logs of a run folder, as they were at a checkpoint if the run resumes.

    A resumed run writes a new event file beside the old ones.

    Args:
        folder: The run folder.
        positions: `Log.positions` of the checkpoint; None for a new run.
        step: Optimizer steps done.
        state: `Log.state_dict` of the checkpoint.
        screens: Other sinks that get each row (`console.Console`).
        transfer: Shared by the logs of runs that train together.

    Raises:
        CheckpointError: A file is missing or shorter than it was; nothing is changed then.
    """
    state = Log().state_dict() if state is None else {"held": {}, **state}
    if state.keys() != {"derived", "owed", "held"} or not all(isinstance(part, dict) for part in state.values()):
        raise CheckpointError("the checkpoint's state of the log is malformed")
    lengths = truncate_logs(folder, positions or {}, state["owed"])
    first = step + 1 if positions else 0
    files: list[LogFile] = [JsonLines(folder / METRICS), EventFile(folder / next_name(folder), first)]
    with storage.refusing(folder):
        storage.disk.fsync_folder(folder)
    log = Log(files, screens, lengths, transfer)
    log.load_state_dict(state)
    return log


def _as_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values as a checkpoint stores them: arrays as tensors."""
    return {tag: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for tag, v in values.items()}


def _as_arrays(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values from a checkpoint: tensors as arrays."""
    return {tag: v.numpy() if isinstance(v, Tensor) else v for tag, v in values.items()}
