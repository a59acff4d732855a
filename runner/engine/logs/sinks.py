"""Where logged rows go: the protocol of a sink, and `metrics.jsonl`, the record that all else is derived from."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from runner.engine.logs.growing import Growing

METRICS = "metrics.jsonl"


class Row(NamedTuple):
    """All that was logged for one step, on the host.

    A value is a number, an array (rank 1: the values of a histogram, rank 3 or 4: images), a text in Markdown, the
    bytes of a PNG, or a TensorBoard `Summary`, for what only TensorBoard knows (hyperparameters, the layout of charts).
    """

    step: int
    time: float  # seconds since 1970
    values: dict[str, Any]


class Sink(Protocol):
    """Takes rows; what it does not know it leaves out."""

    def write(self, rows: Sequence[Row]) -> None:
        """Take rows in order of step; whoever reads the file, or the screen, sees them after the call."""
        ...

    def close(self) -> None:
        """Let go of the file or the screen."""
        ...


class LogFile(Sink, Protocol):
    """A sink whose file is part of the state of the run. Its `write` may raise OSError, and loses nothing by it."""

    @property
    def file(self) -> Growing:
        """Return the file."""
        ...


class JsonLines:
    """`metrics.jsonl`: one JSON object per logged step, `{"step": 7, "train/loss": 0.25}`, numbers only.

    A number is written with all its digits, so that its bits come back. JSON has no word for what is not finite:
    that is one of the strings "NaN", "Infinity" and "-Infinity", which Python's `float` and JavaScript's `Number` read.
    """

    def __init__(self, path: Path) -> None:
        self.file = Growing(path)

    def write(self, rows: Sequence[Row]) -> None:
        """Append the numbers of each row that has any."""
        self.file.append("".join(map(line, rows)).encode())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def line(row: Row) -> str:
    """Return the row's numbers as one line of JSON, or nothing where it has none."""
    values, sum_of_all = row.values, total(row)
    if sum_of_all is not None and math.isfinite(sum_of_all):  # nearly always
        return form(tuple(values)) % (row.step, *values.values())
    numbers = [f", {json.dumps(tag)}: {number(value)}" for tag, value in values.items() if type(value) is float]
    return f'{{"step": {row.step}{"".join(numbers)}}}\n' if numbers else ""


def total(row: Row) -> float | None:
    """Return the sum of a row that holds numbers and nothing else, None for any other."""
    found = 0.0
    for value in row.values.values():
        if type(value) is not float:
            return None
        found += value
    return found if row.values else None


@functools.cache
def form(tags: tuple[str, ...]) -> str:
    """Return the line of a step with these tags, its numbers left out: a run has few such lines."""
    words = (json.dumps(tag).replace("%", "%%") for tag in tags)
    return '{"step": %d' + "".join(f", {word}: %r" for word in words) + "}\n"


def number(value: float) -> str:
    """Return a number as JSON, with the string for what is not finite."""
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def read_metrics(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (step, numbers) of each line of a `metrics.jsonl`; a last line cut short by a crash is left out."""
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            if text.endswith("\n"):
                row = json.loads(text)
                yield row.pop("step"), {tag: float(value) for tag, value in row.items()}
