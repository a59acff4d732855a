"""The tracker `csv`: `metrics.csv` in the run folder, one column per tag and one line per step, for pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from runner.engine.logs.sinks import AppendOnlyFile
from runner.engine.saving import storage
from runner.trackers.contract import TrackedRow, TrackedRun
from runner.user_paths import full

_TABLE = "metrics.csv"
_STEP = "step"


class CsvFile:
    """Writes `metrics.csv`: `step`, then the tags in alphabetical order; a cell without a number is empty.

    A tag that appears late is a new column: the file is then written anew, and replaced as a whole.
    """

    # The file is local: writing it anew makes it equal to `metrics.jsonl`, also where a resumed run went back
    from_first_row = True

    def __init__(self) -> None:
        self._file: AppendOnlyFile | None = None
        self._columns: list[str] = []

    def start(self, run: TrackedRun) -> None:
        """Replace the file by an empty one."""
        self._path, self._columns = run.folder / _TABLE, []
        storage.write_atomic(self._path, b"")
        self._file = AppendOnlyFile(self._path)

    def log(self, rows: Sequence[TrackedRow]) -> None:
        """Append rows; with new columns, write the file anew."""
        tags = {tag for _, values in rows for tag in values}
        if not tags <= set(self._columns):
            self._add_columns(tags)
        assert self._file
        self._file.append(_text([[step, *(values.get(tag, "") for tag in self._columns)] for step, values in rows]))

    def finish(self, status: str, scores: Mapping[str, float]) -> None:
        """Wait until the file is on the disk; `result.json` says how the run ended."""
        assert self._file
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file:
            file.close()

    def _add_columns(self, tags: set[str]) -> None:
        """Write the file anew with more columns."""
        old, self._columns = self._columns, sorted({*self._columns, *tags})
        storage.write_atomic(self._path, self._lines(old))
        self.close()
        self._file = AppendOnlyFile(self._path)

    def _lines(self, old: Sequence[str]) -> Iterator[bytes]:
        """Yield the lines of the file as they are with the present columns, the header first."""
        yield _text([[_STEP, *self._columns]])
        with Path(full(self._path)).open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            next(lines, None)
            for step, *cells in lines:
                row = dict(zip(old, cells, strict=True))
                yield _text([[step, *(row.get(tag, "") for tag in self._columns)]])


def _text(rows: Sequence[Sequence[object]]) -> bytes:
    """Return rows as lines of CSV; a float has all its digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
