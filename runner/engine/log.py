"""The log of a run: numbers stay on the device until they are flushed, and every file's length is part of the state."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.engine import storage
from runner.engine.derived import Derived
from runner.engine.event_file import FORM, EventFile, event_files, next_name
from runner.engine.sinks import METRICS, JsonLines, LogFile, Row, Sink
from runner.engine.transfer import to_host
from runner.errors import CheckpointError

PAUSE = (
    1.0  # seconds between two writes to the files, at least: a write for each flush would cost small models percents
)
UNDEFINED = "ratio/"  # tags whose NaN means that there is nothing to log


class Log:
    """Takes values at any step without waiting for the device, and gives them to files and screens when flushed.

    What is logged for one step comes out as one row, however often `flush` is called: the last step is held back until
    a later one, a checkpoint or the end closes it. So nothing may be logged for a step after its checkpoint.
    """

    def __init__(
        self, files: Sequence[LogFile] = (), screens: Sequence[Sink] = (), lengths: Mapping[str, int] | None = None
    ) -> None:
        self.files, self.screens = list(files), list(screens)
        self._lengths = dict(lengths or {})  # of the files of earlier sessions
        self._pending: list[tuple[int, float, Mapping[str, Any]]] = []
        self._open: Row | None = None
        self._rows: list[Row] = []  # complete, not yet in the files
        self._written = -math.inf
        self._derived = Derived()
        self._latest: dict[str, float] = {}

    def add(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Take values of a step (1 is the first), at the cost of an append; tensors detached, and not changed later."""
        self._pending.append((step, time.time(), values))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Take what is on the host: numbers, texts in Markdown, TensorBoard summaries."""
        self._pending.append((step, time.time(), values))

    def flush(self) -> dict[str, float]:
        """Move all that was added in one transfer, show it, and return the latest number of each tag.

        The files get it too, unless they got something a moment ago: then with the next flush, or the next checkpoint.
        """
        pending, self._pending = self._pending, []
        host = iter(to_host([v for _, _, values in pending for v in values.values() if isinstance(v, Tensor)]))
        rows = [] if self._open is None else [self._open]
        for step, moment, values in pending:
            if not rows or rows[-1].step != step:
                rows.append(Row(step, moment, {}))
            self._fill(
                rows[-1].values, {t: next(host) if isinstance(v, Tensor) else plain(v) for t, v in values.items()}
            )
        self._open = rows.pop() if rows else None
        self._show(rows)
        if time.monotonic() - self._written >= PAUSE:
            self._write()
        return dict(self._latest)

    def positions(self) -> dict[str, int]:
        """Write all that was logged, wait until it is on the disk, and return the bytes of each file by name."""
        self._settle()
        self._write()
        for file in self.files:
            with storage.refusing(file.path):
                self._lengths[file.path.name] = file.sync()
        return dict(self._lengths)

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs beside the files: where the derived numbers stand."""
        self._settle()
        return self._derived.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self._derived = Derived(state)

    def close(self) -> None:
        """Write the rest and close the files, also where writing fails."""
        try:
            self._settle()
            self._write()
        finally:
            for sink in (*self.screens, *self.files):
                sink.close()
            self.files, self.screens = [], []

    def _fill(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        """Put values into the row of their step, with what is derived from them, without undefined ratios."""
        values.update(self._derived.update(values))
        for tag, value in values.items():
            if type(value) is not float:
                row[tag] = value
            elif value == value or not tag.startswith(UNDEFINED):
                row[tag] = self._latest[tag] = value

    def _settle(self) -> None:
        self.flush()
        last, self._open = self._open, None
        self._show([last] if last is not None else [])

    def _show(self, rows: list[Row]) -> None:
        self._rows += rows
        for screen in self.screens if rows else ():
            screen.write(rows)

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        for file in self.files if rows else ():
            with storage.refusing(file.path):
                file.write(rows)
        self._written = time.monotonic()


def plain(value: Any) -> Any:
    """Return any kind of number as a float, the rest as it is."""
    return float(value) if isinstance(value, Real) else value


def open_logs(folder: Path, *, positions: Mapping[str, int] | None, step: int, screens: Sequence[Sink] = ()) -> Log:
    """Open the logs of a run after `step` optimizer steps; with the `positions` of a checkpoint, as they were then.

    `screens` are told of every row too (`console.Console`; none where the run is quiet).
    Files are cut to their positions, logs that the checkpoint does not know are deleted, and a new event file goes on.
    Raises CheckpointError, before anything is changed, where a file is missing or shorter than it was.
    """
    lengths = dict(positions or {})
    for name, length in lengths.items():
        check(folder, name, length)
    for name in {METRICS, *event_files(folder)} - set(lengths):
        storage.remove(folder / name)
    for name, length in lengths.items():
        storage.truncate(folder / name, length)
    first = step + 1 if positions else 0
    files: list[LogFile] = [JsonLines(folder / METRICS), EventFile(folder / next_name(folder), first)]
    with storage.refusing(folder):
        storage.disk.fsync_folder(folder)
    return Log(files, screens, lengths)


def check(folder: Path, name: str, length: int) -> None:
    """Raise CheckpointError where a name is not that of a log, or its file cannot be cut to a length that it had."""
    path = folder / name
    if name != METRICS and not FORM.fullmatch(name):
        raise CheckpointError(f"the checkpoint names {name!r} as a log, which it is not")
    if not path.is_file():
        raise CheckpointError(f"{path}: missing, and the checkpoint says that it held {length} bytes")
    if path.stat().st_size < length:
        raise CheckpointError(f"{path}: holds {path.stat().st_size} bytes, and the checkpoint says {length}")
