"""Sinks of logged rows: their protocols, the file that they append to, and `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from runner.engine.saving import storage

METRICS = "metrics.jsonl"


class Row(NamedTuple):
    """All that was logged for one step, on the host.

    A value is a number, an array (rank 1: the values of a histogram, rank 3 or 4: images), a text in Markdown, the
    bytes of a PNG, or a TensorBoard `Summary` (hyperparameters, the layout of charts).
    """

    step: int
    time: float  # seconds since 1970
    values: dict[str, Any]


class Sink(Protocol):
    """Takes rows; ignores values of kinds that it cannot show."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows, in order of step; a reader of the file or the screen sees them after the call."""
        ...

    def close(self) -> None:
        """Close the file or leave the screen."""
        ...


class LogFile(Sink, Protocol):
    """A sink whose file is part of the state of the run; when `write` raises OSError, the rows stay in the backlog."""

    @property
    def file(self) -> AppendOnlyFile:
        """The file."""
        ...


class AppendOnlyFile:
    """A new or existing file, open at its end; bytes that the disk does not take now are kept and written first later.

    Attributes:
        size: The bytes that it certainly holds.
        backlog: The bytes that follow and that the disk has not taken yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.backlog = path, b""
        with storage.refusing(path):
            try:
                self._file = storage.disk.create(path)
            except FileExistsError:
                self._file = storage.disk.open(path)
        self.size = os.lseek(self._file, 0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        """Write backlog and data whole; or raise OSError, write nothing and keep all of it as the backlog."""
        self.backlog += data
        rest = memoryview(self.backlog)
        try:
            if os.lseek(self._file, 0, os.SEEK_CUR) != self.size:
                self._cut()
            while rest:
                rest = rest[storage.disk.write(self._file, rest) :]
        except OSError:
            # A torn write that cannot be cut now is cut before the next try.
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self.size, self.backlog = self.size + len(self.backlog), b""

    def sync(self) -> int:
        """Wait until all but the backlog is on the disk; return those bytes. Raises OSError if the file is gone."""
        here, named = os.fstat(self._file), self.path.lstat()
        if (here.st_dev, here.st_ino) != (named.st_dev, named.st_ino):
            raise OSError(errno.ENOENT, "another file has taken its place")
        storage.disk.fsync(self._file)
        return self.size

    def close(self) -> None:
        """Close the file."""
        storage.disk.close(self._file)

    def _cut(self) -> None:
        storage.disk.truncate(self._file, self.size)
        os.lseek(self._file, self.size, os.SEEK_SET)


class JsonLines:
    """`metrics.jsonl`: one JSON object per logged step, `{"step": 7, "train/loss": 0.25}`, numbers only.

    A number has all its digits, so that reading it gives the same bits. JSON has no non-finite numbers: they are the
    strings "NaN", "Infinity" and "-Infinity", which Python's `float` and JavaScript's `Number` read.
    """

    def __init__(self, path: Path) -> None:
        self.file = AppendOnlyFile(path)

    def write(self, rows: Sequence[Row]) -> None:
        """Append the numbers of each row that has any."""
        self.file.append("".join(map(_line, rows)).encode())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _line(row: Row) -> str:
    """Return the row's numbers as one line of JSON, the empty string if it has none."""
    values, sum_of_all = row.values, total(row)
    # Nearly all rows hold finite numbers only: a finite sum shows it in one pass.
    if sum_of_all is not None and math.isfinite(sum_of_all):
        return _template(tuple(values)) % (row.step, *values.values())
    numbers = [f", {json.dumps(tag)}: {_number(value)}" for tag, value in values.items() if type(value) is float]
    return f'{{"step": {row.step}{"".join(numbers)}}}\n' if numbers else ""


def total(row: Row) -> float | None:
    """Return the sum of a row that holds only numbers, None for any other row."""
    found = 0.0
    for value in row.values.values():
        if type(value) is not float:
            return None
        found += value
    return found if row.values else None


@functools.cache
def _template(tags: tuple[str, ...]) -> str:
    """Return the line of a step with these tags as a %-template; a run has few such tuples of tags."""
    words = (json.dumps(tag).replace("%", "%%") for tag in tags)
    return '{"step": %d' + "".join(f", {word}: %r" for word in words) + "}\n"


def _number(value: float) -> str:
    """Return a number as JSON, a non-finite one as a string."""
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def read_metrics(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (step, numbers) of each line of a `metrics.jsonl`; skip a last line that a crash cut short."""
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            if text.endswith("\n"):
                row = json.loads(text)
                yield row.pop("step"), {tag: float(value) for tag, value in row.items()}
