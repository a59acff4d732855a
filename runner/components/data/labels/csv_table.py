"""CSV files: the delimiter, the header and the rows with their line numbers, within limits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.engine.saving import storage
from runner.engine.saving.storage import printable
from runner.errors import DataError, brief, escaped
from runner.out_of_scope import DETECTION

_MAX_BYTES = 1 << 29
_MAX_COLUMNS = 1 << 16
# Files of boxes and masks (COCO, Pascal VOC, YOLO)
_NO_TABLES = (".json", ".jsonl", ".xml", ".yaml", ".yml")
_DELIMITERS = (",", ";", "\t", "|")
# Characters in which the delimiter is looked for
_SNIFFED = 1 << 16
# Byte order marks. A file without one is UTF-8
_ENCODINGS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig"))


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file; each has as many cells as the first, without the spaces around them."""

    path: Path
    rows: list[list[str]]
    # Number of the line at which each row begins
    lines: list[int]

    def where(self, row: int) -> str:
        """Return the file and the line of a row."""
        return _place_in(self.path, self.lines[row])


def _place_in(path: Path, line: int) -> str:
    """Return a file and a line for a message."""
    return f"{printable(path)}, line {line}"


def read_table(path: Path) -> Table:
    """Return the rows of a CSV file with the delimiter `,`, `;`, `|` or tab, whichever gives the most columns.

    Raises DataError for a file that cannot be read, and for one that is not a table, with the line.
    """
    text = _read_text(path)
    if path.suffix.lower() in _NO_TABLES or text.startswith("{"):
        kind = (path.suffix[1:] or "json").upper()
        raise DataError(
            f"data.labels: {printable(path)} is {kind}, must be CSV with a row `file,label` per image; {DETECTION}"
        )
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, cells in _parse(path, text, _delimiter(text)):
        if not any(cells):
            continue
        if not rows and len(cells) > _MAX_COLUMNS:
            raise DataError(f"{_place_in(path, line)}: has {len(cells)} columns, expected at most {_MAX_COLUMNS}")
        if rows and len(cells) != len(rows[0]):
            raise DataError(
                f"{_place_in(path, line)}: has {len(cells)} cells, expected {len(rows[0])} as in line {lines[0]} "
                f"({escaped(brief(','.join(cells)))})"
            )
        rows.append(cells)
        lines.append(line)
    if not rows:
        raise DataError(f"{printable(path)}: has no rows")
    return Table(path, rows, lines)


def _read_text(path: Path) -> str:
    """Return the text of a file; raise DataError with the line of a byte that is no text."""
    try:
        data = storage.read(path, _MAX_BYTES)
    except OSError as error:
        raise DataError(f"data.labels: {printable(path)}: {error.strerror or error}") from error
    encoding = next(name for mark, name in _ENCODINGS if data.startswith(mark))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x}" if error.start < len(data) else "its last byte"
        raise DataError(
            f"{_place_in(path, line)}: {byte} is not {encoding[:6].upper()}; save the file as UTF-8"
        ) from error
    if (at := text.find("\0")) >= 0:
        raise DataError(f"{_place_in(path, text.count(chr(10), 0, at) + 1)}: has a NUL character; this is no CSV file")
    return text


def _delimiter(text: str) -> str:
    """Return the delimiter that gives the most columns of those that give each of the first rows as many."""
    part = text[:_SNIFFED]
    if len(text) > _SNIFFED:
        # Without the line that was cut
        part = part[: part.rfind("\n") + 1] or part
    best, most = _DELIMITERS[0], 1
    for delimiter in _DELIMITERS:
        counts = set()
        try:
            counts = {len(cells) for cells in csv.reader(io.StringIO(part, newline=""), delimiter=delimiter) if cells}
        except csv.Error:
            continue
        if len(counts) == 1 and (columns := counts.pop()) > most:
            best, most = delimiter, columns
    if most == 1 and text:
        # Rows of different lengths: the delimiter of the first line, so that the message names the line that differs
        first = text[:_SNIFFED].lstrip().partition("\n")[0]
        best = max(_DELIMITERS, key=lambda each: (first.count(each), -_DELIMITERS.index(each)))
    return best


def _parse(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each row; raise DataError for quotes that do not match."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t"
    )
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{_place_in(path, line)}: cannot be read as CSV ({error})") from error
        yield line, [cell.strip() for cell in cells]
        line = reader.line_num + 1
