"""Where logged rows go: the protocol of a sink, and `metrics.jsonl`, the record that all else is derived from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

METRICS = "metrics.jsonl"


class Row(NamedTuple):
    """All that was logged for one step, on the host.

    A value is a number, an array (rank 1: the values of a histogram, rank 3 or 4: images), a text in Markdown, or a
    ready TensorBoard `Summary`, for what only TensorBoard knows (hyperparameters, the layout of its charts).
    """

    step: int
    time: float  # seconds since 1970
    values: dict[str, Any]


class Sink(Protocol):
    """A file that takes rows; what it does not know it leaves out."""

    name: str

    def write(self, rows: Sequence[Row]) -> None:
        """Take rows in order of step; whoever reads the file sees them after the call."""
        ...

    def sync(self) -> int:
        """Wait until all of the file is on the disk, and return its bytes."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class JsonLines:
    """`metrics.jsonl`: one JSON object per logged step, `{"step": 7, "train/loss": 0.25}`, numbers only.

    A number is written with all its digits, so that its bits come back. JSON has no word for what is not finite:
    that is one of the strings "NaN", "Infinity" and "-Infinity", which Python's `float` and JavaScript's `Number` read.
    """

    name = METRICS

    def __init__(self, folder: Path) -> None:
        self._file = open_to_append(folder / METRICS)

    def write(self, rows: Sequence[Row]) -> None:
        """Append the numbers of each row that has any."""
        append(self._file, "".join(map(line, rows)).encode())

    def sync(self) -> int:
        """Return the bytes of the file once they are on the disk."""
        return on_disk(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line(row: Row) -> str:
    """Return the row's numbers as one line of JSON, or nothing where it has none."""
    numbers = {
        tag: value if math.isfinite(value) else word(value) for tag, value in row.values.items() if type(value) is float
    }
    return json.dumps({"step": row.step, **numbers}, ensure_ascii=False, allow_nan=False) + "\n" if numbers else ""


def word(value: float) -> str:
    """Return the word that stands for a number that is not finite."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_metrics(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (step, numbers) of each line of a `metrics.jsonl`; a last line cut short by a crash is left out."""
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            if text.endswith("\n"):
                row = json.loads(text)
                yield row.pop("step"), {tag: float(value) for tag, value in row.items()}


def open_to_append(path: Path) -> BinaryIO:
    """Open a log file for writing at its end, unbuffered; never through a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "ab", buffering=0)


def append(file: BinaryIO, data: bytes) -> None:
    """Write all of the data; unbuffered, so that a full disk is an error here and not later in a destructor."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def on_disk(file: BinaryIO) -> int:
    """Wait until the file is on the disk, and return its bytes."""
    os.fsync(file.fileno())
    return os.fstat(file.fileno()).st_size
