"""The log of a run: numbers stay on the device until they are flushed, and every file's length is part of the state."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.engine.logs.cut_back import cut_back
from runner.engine.logs.delivery import deliver
from runner.engine.logs.derived import Derived
from runner.engine.logs.event_file import EventFile, next_name
from runner.engine.logs.logged import as_arrays, as_tensors, tensors_of, told
from runner.engine.logs.sinks import METRICS, JsonLines, LogFile, Row, Sink
from runner.engine.saving import storage
from runner.engine.transfer import to_host
from runner.errors import CheckpointError

PAUSE = 0.5  # seconds between two flushes of `keep_up`, at least: one for each look would cost small models percents


class Log:
    """Takes values at any step without waiting for the device, and gives them to files and screens when flushed.

    What is logged for one step comes out as one row, however often `flush` is called: the last step is held back until
    a later one, a checkpoint or the end closes it. So nothing may be logged for a step after its checkpoint.

    A disk that takes no more does not end the run: a line on standard error says so, the rest waits in memory, is tried
    again with whatever follows, and is part of the state, so that a checkpoint lacks no step.
    """

    def __init__(
        self, files: Sequence[LogFile] = (), screens: Sequence[Sink] = (), lengths: Mapping[str, int] | None = None
    ) -> None:
        self.files, self.screens = list(files), list(screens)
        self._lengths = dict(lengths or {})  # of the files of earlier sessions
        self._pending: list[tuple[int, float, Mapping[str, Any]]] = []
        self._open: Row | None = None
        self._held = False
        self._flushed = -math.inf
        self._late: set[Path] = set()  # files that owe something
        self._derived = Derived()
        self._latest: dict[str, float] = {}

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Take values of a step (1 is the first), at the cost of an append.

        These are tensors and `Numbers` on the device, detached and not changed later, or what is on the host: numbers,
        texts in Markdown, TensorBoard summaries.
        """
        self._pending.append((step, time.time(), values))

    def latest(self, tag: str) -> float | None:
        """Return the last number of a tag, None if there is none; may wait for the device."""
        for _, _, values in reversed(self._pending):
            if tag in values:
                return float(values[tag])
        return self._latest.get(tag)

    def keep_up(self) -> None:
        """Flush, unless that was done a moment ago."""
        if time.monotonic() - self._flushed >= PAUSE:
            self.flush()

    def flush(self) -> dict[str, float]:
        """Give all that was added to screens and files, in one transfer; return the latest number of each tag."""
        pending, self._pending = self._pending, []
        host = iter(to_host([t for _, _, values in pending for value in values.values() for t in tensors_of(value)]))
        rows = [] if self._open is None else [self._open]
        for step, moment, values in pending:
            if not rows or rows[-1].step != step:
                rows.append(Row(step, moment, {}))
            found = told(values, host)
            self._derived.extend(found)
            rows[-1].values.update(found)
        self._remember(rows)
        self._open = rows.pop() if rows else None
        self._give(rows)
        self._flushed = time.monotonic()
        return dict(self._latest)

    def forget(self, after: int) -> None:
        """Drop what was added since the last flush for later steps."""
        self._pending = [entry for entry in self._pending if entry[0] <= after]

    def hold(self) -> None:
        """Keep the last step's row open through the next checkpoint, whose state then holds it: a resumed run fills it.

        Nothing may be logged for a later step.
        """
        self._held = True

    def positions(self) -> dict[str, int]:
        """Write all that was logged, wait until it is on the disk, and return the bytes of each file by name.

        What the disk does not take is in the `state_dict` that follows.
        """
        self._settle()
        for sink in self.files:
            with storage.refusing(sink.file.path):
                self._lengths[sink.file.path.name] = sink.file.sync()
        return dict(self._lengths)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the files as of the last `positions`."""
        owing = [sink.file for sink in self.files if sink.file.owed]
        owed = {file.path.name: torch.from_numpy(np.frombuffer(file.owed, np.uint8).copy()) for file in owing}
        row = {} if self._open is None else {**self._open._asdict(), "values": as_tensors(self._open.values)}
        return {"derived": self._derived.state_dict(), "owed": owed, "held": row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back where the derived numbers stood, and a row on hold; `open_logs` writes what was owed."""
        self._derived = Derived(state["derived"])
        if row := state["held"]:
            self._open = Row(row["step"], row["time"], as_arrays(row["values"]))

    def close(self) -> None:
        """Write the rest and close the files; StorageError if the disk does not take it.

        An error that is on its way already stays the one that is told of.
        """
        broken = sys.exception() is not None
        self._held = False
        try:
            self._settle()
            for log in self.files if not broken else ():
                with storage.refusing(log.file.path):
                    log.file.append(b"")  # what is owed
        finally:
            for sink in (*self.screens, *self.files):
                sink.close()
            self.files, self.screens = [], []

    def _remember(self, rows: Sequence[Row]) -> None:
        """Keep the latest number of each tag."""
        latest: dict[str, Any] = {}
        for row in rows:
            latest.update(row.values)
        self._latest.update({tag: value for tag, value in latest.items() if type(value) is float})

    def _settle(self) -> None:
        self.flush()
        if not self._held and self._open is not None:
            last, self._open = self._open, None
            self._give([last])

    def _give(self, rows: Sequence[Row]) -> None:
        for screen in self.screens if rows else ():
            screen.write(rows)
        for sink in self.files if rows or self._late else ():
            deliver(sink, rows, self._late)


def open_logs(
    folder: Path,
    *,
    positions: Mapping[str, int] | None,
    step: int,
    state: Mapping[str, Any] | None = None,
    screens: Sequence[Sink] = (),
) -> Log:
    """Open the logs of a run after `step` optimizer steps; with `positions` and `state` of a checkpoint, as they were.

    `screens` are told of every row too (`console.Console`; none where the run is quiet). A new event file goes on.
    Raises CheckpointError, before anything is changed, where a file is missing or shorter than it was.
    """
    state = Log().state_dict() if state is None else {"held": {}, **state}
    if state.keys() != {"derived", "owed", "held"} or not all(isinstance(part, dict) for part in state.values()):
        raise CheckpointError("the checkpoint's state of the log is malformed")
    lengths = cut_back(folder, positions or {}, state["owed"])
    first = step + 1 if positions else 0
    files: list[LogFile] = [JsonLines(folder / METRICS), EventFile(folder / next_name(folder), first)]
    with storage.refusing(folder):
        storage.disk.fsync_folder(folder)
    log = Log(files, screens, lengths)
    log.load_state_dict(state)
    return log
