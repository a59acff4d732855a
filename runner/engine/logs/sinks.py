"""Sinks, which rows are written to: their protocols, the append-only file, and `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from runner.engine.monitor import with_new_tags
from runner.engine.saving import storage
from runner.engine.saving.held import check_held
from runner.user_paths import full

METRICS = "metrics.jsonl"


class Row(NamedTuple):
    """All values that were logged for one step, on the host.

    Attributes:
        step: The number of optimizer steps done.
        time: When the values were logged, in seconds since 1970.
        values: The values by tag: floats, arrays (rank 1: the values of a histogram; rank 3 or 4: images), Markdown
            texts, the bytes of a PNG, or a TensorBoard `Summary` (hyperparameters, chart layout).
    """

    step: int
    time: float
    values: dict[str, Any]


class Sink(Protocol):
    """Writes rows; ignores values of kinds that it does not support."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows in order of step; they are visible to readers of the file after the call."""
        ...

    def close(self) -> None:
        """Close the file, or release the terminal."""
        ...


class LogFile(Sink, Protocol):
    """A sink whose file is part of the state of the run; if `write` raises OSError, its backlog keeps the rows."""

    @property
    def file(self) -> AppendOnlyFile:
        """The file."""
        ...


class AppendOnlyFile:
    """A new or existing file, opened at its end; bytes that cannot be written are kept for the next `append`.

    Args:
        path: The file.

    Attributes:
        path: The file.
        size: The number of bytes that were written completely.
        backlog: The bytes that could not be written yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.backlog = path, b""
        with storage.convert_os_errors(path):
            try:
                self._file = storage.disk.create(path)
            except FileExistsError:
                self._file = storage.disk.open(path)
        self.size = os.lseek(self._file, 0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        """Write the backlog and `data` completely; or raise OSError, write nothing and keep both as the backlog.

        Raises:
            Locked: Another process has the run folder by now.
        """
        check_held(self.path)
        self.backlog += data
        rest = memoryview(self.backlog)
        try:
            # The previous call failed and could not remove its partial write.
            if os.lseek(self._file, 0, os.SEEK_CUR) != self.size:
                self._truncate()
            while rest:
                rest = rest[storage.disk.write(self._file, rest) :]
        except OSError:
            # Remove a partial write. If that fails now, the next call does it.
            with contextlib.suppress(OSError):
                self._truncate()
            raise
        self.size, self.backlog = self.size + len(self.backlog), b""

    def sync(self) -> int:
        """Wait until the written bytes are on the disk and return their number.

        Raises:
            OSError: The file was removed or replaced, or the disk fails.
        """
        opened, current = os.fstat(self._file), os.lstat(full(self.path))
        if (opened.st_dev, opened.st_ino) != (current.st_dev, current.st_ino):
            raise OSError(errno.ENOENT, "the file was replaced by another one")
        storage.disk.fsync(self._file)
        return self.size

    def close(self) -> None:
        """Close the file."""
        storage.disk.close(self._file)

    def _truncate(self) -> None:
        """Truncate the file to the bytes that were written completely."""
        storage.disk.truncate(self._file, self.size)
        os.lseek(self._file, self.size, os.SEEK_SET)


class JsonLines:
    """A sink that writes `metrics.jsonl`: one JSON object per logged step, such as `{"step": 7, "train/loss": 0.25}`.

    It writes numbers only, with all their digits, so that reading one gives the same bits. JSON has no non-finite
    numbers. They are written as the strings "NaN", "Infinity" and "-Infinity", which Python's `float` and JavaScript's
    `Number` accept.
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
    """Return the numbers of a row as one line of JSON; an empty string if it has none."""
    values, sum_of_all = row.values, sum_of_scalars(row)
    # The fast path for a row of finite numbers, which nearly all are: if the sum is finite, all numbers are.
    if sum_of_all is not None and math.isfinite(sum_of_all):
        return _template(tuple(values)) % (row.step, *values.values())
    numbers = [f", {json.dumps(tag)}: {_number(value)}" for tag, value in values.items() if type(value) is float]
    return f'{{"step": {row.step}{"".join(numbers)}}}\n' if numbers else ""


def sum_of_scalars(row: Row) -> float | None:
    """Return the sum of the values of a row; None if a value is not a number or there are no values."""
    total = 0.0
    for value in row.values.values():
        if type(value) is not float:
            return None
        total += value
    return total if row.values else None


@functools.cache
def _template(tags: tuple[str, ...]) -> str:
    """Return the JSON line of a row with these tags as a %-template; a run has few different tuples of tags."""
    keys = (json.dumps(tag).replace("%", "%%") for tag in tags)
    return '{"step": %d' + "".join(f", {key}: %r" for key in keys) + "}\n"


def _number(value: float) -> str:
    """Return a number as JSON; a non-finite one as a string."""
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _open_regular(path: str) -> int:
    """Return the descriptor of a regular file; raise OSError for a pipe, whose writer one would wait for."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


def read_rows(path: Path, position: int, most: int) -> tuple[list[tuple[int, dict[str, float]]], int]:
    """Return the rows of the complete lines after a position in a `metrics.jsonl`, and the position after them.

    Reads about `most` bytes, at least a line. Raises OSError if there is no such file.
    """
    with open(_open_regular(full(path)), "rb") as file:
        file.seek(position)
        data = file.read(most)
        if data and b"\n" not in data:
            data += file.readline()
    data = data[: data.rfind(b"\n") + 1]
    return [_numbers_in(line) for line in data.splitlines()], position + len(data)


def read_metrics(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield (step, numbers by tag) of each line of a `metrics.jsonl`; skip a last line that a crash left incomplete.

    The numbers have the tags of this version, whichever version wrote them. Raises OSError if there is no such file.
    """
    with open(_open_regular(full(path)), encoding="utf-8") as lines:
        for text in lines:
            if text.endswith("\n"):
                yield _numbers_in(text)


def _numbers_in(line: str | bytes) -> tuple[int, dict[str, float]]:
    """Return (step, numbers by tag) of a line, with the tags of this version."""
    row = json.loads(line)
    return row.pop("step"), with_new_tags({tag: float(value) for tag, value in row.items()})
