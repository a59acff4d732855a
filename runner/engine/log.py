"""The log of a run: numbers stay on the device until they are flushed, and every file's length is part of the state."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.engine.event_file import FORM, EventFile, event_files
from runner.engine.sinks import METRICS, JsonLines, Row, Sink, on_disk, open_to_append
from runner.engine.transfer import to_host
from runner.errors import CheckpointError, StorageError

LOSS = "train/loss"
AVERAGE = "train/loss_average"
DECAY = 0.98  # of the moving average of the training loss, per step: it looks back about 50 steps
UNDEFINED = "ratio/"  # tags whose NaN means that there is nothing to log


class Log:
    """Takes values at any step without waiting for the device, and gives them to its sinks when flushed.

    What is logged for one step comes out as one row, however often `flush` is called: the last step is held back until
    a later one, a checkpoint or the end closes it. So nothing may be logged for a step after its checkpoint.
    """

    def __init__(self, sinks: Sequence[Sink], lengths: Mapping[str, int] | None = None) -> None:
        self.sinks = list(sinks)
        self._lengths = dict(lengths or {})  # of the files of earlier sessions
        self._pending: list[tuple[int, float, Mapping[str, Any]]] = []
        self._open: Row | None = None
        self._average = Average()
        self._latest: dict[str, float] = {}

    def add(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Take values of a step (1 is the first), at the cost of an append; tensors detached, and not changed later."""
        self._pending.append((step, time.time(), values))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Take what is on the host: numbers, texts in Markdown, TensorBoard summaries."""
        self._pending.append((step, time.time(), values))

    def flush(self) -> dict[str, float]:
        """Move all that was added in one transfer, write it, and return the latest number of each tag."""
        closed: list[Row] = []
        for step, moment, values in on_host(self._pending):
            if self._open is not None and self._open.step != step:
                closed.append(self._open)
                self._open = None
            self._open = self._open or Row(step, moment, {})
            self._open.values.update(self._derived(values))
        self._pending = []
        self._give(closed)
        return dict(self._latest)

    def positions(self) -> dict[str, int]:
        """Write all that was logged, wait until it is on the disk, and return the bytes of each file by name."""
        self._settle()
        try:
            return self._lengths | {sink.name: sink.sync() for sink in self.sinks}
        except OSError as error:
            raise storage(error) from error

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run needs beside the files: the moving average of the loss."""
        self._settle()
        return {"total": self._average.total, "weight": self._average.weight}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self._average = Average(state["total"], state["weight"])

    def close(self) -> None:
        """Write the rest and close the files, also where writing fails."""
        try:
            self._settle()
        finally:
            for sink in self.sinks:
                sink.close()
            self.sinks = []

    def _derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with the moving average, without undefined ratios."""
        kept = {
            tag: value
            for tag, value in values.items()
            if not (tag.startswith(UNDEFINED) and type(value) is float and math.isnan(value))
        }
        if LOSS in kept:
            kept[AVERAGE] = self._average.update(kept[LOSS])
        self._latest |= {tag: value for tag, value in kept.items() if type(value) is float}
        return kept

    def _settle(self) -> None:
        self.flush()
        last, self._open = self._open, None
        self._give([last] if last is not None else [])

    def _give(self, rows: list[Row]) -> None:
        if not rows:
            return
        try:
            for sink in self.sinks:
                sink.write(rows)
        except OSError as error:
            raise storage(error) from error


class Average:
    """A moving average that starts without the pull of a zero (Kingma & Ba 2015, section 3)."""

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self.total, self.weight = total, weight

    def update(self, value: float) -> float:
        """Take in a number, unless it is not finite, and return the average."""
        if math.isfinite(value):
            self.total = DECAY * self.total + (1 - DECAY) * value
            self.weight = DECAY * self.weight + (1 - DECAY)
        return self.total / self.weight if self.weight else math.nan


def on_host(pending: Sequence[tuple[int, float, Mapping[str, Any]]]) -> list[tuple[int, float, dict[str, Any]]]:
    """Return the entries with floats and arrays in place of tensors."""
    moved = iter(to_host([v for _, _, values in pending for v in values.values() if isinstance(v, Tensor)]))
    return [
        (step, moment, {tag: next(moved) if isinstance(v, Tensor) else plain(v) for tag, v in values.items()})
        for step, moment, values in pending
    ]


def plain(value: Any) -> Any:
    """Return any kind of number as a float, the rest as it is."""
    return float(value) if isinstance(value, Real) else value


def open_logs(folder: Path, *, positions: Mapping[str, int] | None, step: int) -> Log:
    """Open the logs of a run after `step` optimizer steps; with the `positions` of a checkpoint, as they were then.

    Files are cut to their positions, event files that the checkpoint does not know are deleted, and a new event file
    goes on. Raises CheckpointError where a file is missing or shorter than it was.
    """
    lengths = dict(positions or {})
    try:
        for name in event_files(folder):
            if name not in lengths:
                (folder / name).unlink()
        for name, length in {METRICS: 0, **lengths}.items():
            cut(folder, name, length)
        sinks: list[Sink] = [JsonLines(folder), EventFile(folder, step + 1 if positions else 0)]
    except OSError as error:
        raise storage(error) from error
    return Log(sinks, {name: length for name, length in lengths.items() if name != METRICS})


def cut(folder: Path, name: str, length: int) -> None:
    """Cut a log file to a length that it had before."""
    if name != METRICS and not FORM.fullmatch(name):
        raise CheckpointError(f"the checkpoint names '{name}' as a log, which is none")
    if length and not (folder / name).is_file():
        raise CheckpointError(f"{folder / name}: missing, and the checkpoint says that it had {length} bytes")
    with open_to_append(folder / name) as file:
        if on_disk(file) < length:
            raise CheckpointError(f"{folder / name}: shorter than the {length} bytes that the checkpoint says")
        file.truncate(length)


def storage(error: OSError) -> StorageError:
    """Return the one line for a log that cannot be written."""
    return StorageError(f"cannot write the log {error.filename or ''}: {error.strerror}".replace("  ", " "))
