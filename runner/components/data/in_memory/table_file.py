"""The columns of a CSV or Parquet file. Cells of a CSV file stay text; those of a Parquet file have its types."""

from __future__ import annotations

import csv
import math
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, brief
from runner.user_paths import full, status

_Array = NDArray[Any]
_PARQUET = b"PAR1"
_DELIMITERS = (",", ";", "\t", "|")
# Rows of a CSV file that are converted together
_ROWS = 8192
# Bytes that a byte of a CSV file may take as text: four per character, and as much for widths that differ
_GROWTH = 8


@dataclass(frozen=True)
class Table:
    """The columns of a file, each (N,): text, or numbers with NaN where a cell is missing.

    Attributes:
        columns: The columns by name, without unnamed ones and those that were not read.
        names: The names of all columns of the file.
        unusable: The types of columns that are neither numbers nor text, by name.
        notes: Lines about columns that were left out.
    """

    columns: dict[str, _Array]
    names: list[str]
    unusable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_table(path: Path, ignore: Collection[str], memory: int) -> Table:
    """Return the columns of a CSV file (UTF-8, with a header, separated by , ; | or tabs) or a Parquet file.

    Args:
        path: The file.
        ignore: Columns that are not read from a Parquet file.
        memory: MiB that the columns may take.

    Raises:
        ConfigError: The file is a Parquet file, and pyarrow is not installed.
        DataError: The file is missing, damaged, too large, or no table.
    """
    where = f"data.root: {printable(path)}"
    try:
        check_file(path, where, "a table")
        with Path(full(path)).open("rb") as file:
            parquet = file.read(4) == _PARQUET
        return _read_parquet(path, ignore, memory, where) if parquet else _read_csv(path, memory, where)
    except (OSError, csv.Error) as error:
        raise DataError(f"{where} cannot be read ({brief(' '.join(str(error).split()))})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not a Parquet file, and not UTF-8 text (byte {error.start})") from error


def check_file(path: Path, where: str, what: str) -> None:
    """Raise DataError unless a path leads to a file; `where` begins the message, `what` is what the file should be."""
    found = status(path, error=DataError, key="data.root")
    if found is None or not stat.S_ISREG(found.st_mode):
        raise DataError(f"{where} {'does not exist' if found is None else 'is not a file'}; expected {what}")


def _check_size(size: float, memory: int, where: str) -> None:
    """Raise DataError if so many bytes are not allowed."""
    if size > memory * 2**20:
        raise DataError(f"{where}: takes up to {math.ceil(size / 2**20)} MiB, must be <= data.memory ({memory} MiB)")


def _read_csv(path: Path, memory: int, where: str) -> Table:
    """Return the columns of a CSV file as text without spaces around."""
    _check_size(os.stat(full(path)).st_size * _GROWTH, memory, where)  # noqa: PTH116
    with Path(full(path)).open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = max(_DELIMITERS, key=first.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, where)
        rows = (row for row in reader if row)
        parts = list(_csv_chunks(rows, len(header), where, reader))
    if not parts:
        raise DataError(f"{where} has a header and no rows")
    columns = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(header) if name}
    unnamed = [str(i + 1) for i, name in enumerate(header) if not name]
    notes = (
        (f"data: column {', '.join(unnamed)} has no name, as an index that pandas writes: not used",) if unnamed else ()
    )
    return Table(columns, list(columns), notes=notes)


def _csv_chunks(rows: Iterable[list[str]], width: int, where: str, reader: Any) -> Iterable[list[_Array]]:
    """Yield the columns of some thousand rows after the other."""
    rows = iter(rows)
    while some := _checked_rows(rows, width, where, reader):
        yield [np.char.strip(np.array(cells, dtype=np.str_)) for cells in zip(*some, strict=True)]


def _checked_rows(rows: Iterable[list[str]], width: int, where: str, reader: Any) -> list[list[str]]:
    """Return the next rows. Raises DataError for one with more or fewer cells than the header."""
    some = []
    for row in islice(rows, _ROWS):
        if len(row) != width:
            raise DataError(f"{where}: line {reader.line_num} has {len(row)} cells, must have {width} as the header")
        some.append(row)
    return some


def _check_header(header: list[str], where: str) -> None:
    """Raise DataError for a header that is missing, or in which a name stands twice."""
    if not any(header):
        raise DataError(f"{where} has no header with the names of the columns")
    if all(_is_number(name) for name in header if name):
        raise DataError(f"{where} has no header: its first line has only numbers ({brief(', '.join(header))})")
    _check_unique([name for name in header if name], where)


def _check_unique(names: list[str], where: str) -> None:
    """Raise DataError for two columns of one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: two columns are named '{brief(name)}'")
        seen.add(name)


def _is_number(text: str) -> bool:
    """Return True for the text of a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, ignore: Collection[str], memory: int, where: str) -> Table:
    """Return the columns of a Parquet file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(f"{where}: a Parquet file needs pyarrow; install it with: pip install pyarrow") from error
    try:
        with parquet.ParquetFile(full(path)) as file:
            names = list(file.schema_arrow.names)
            _check_unique(names, where)
            wanted = [name for name in names if name not in ignore]
            groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
            # A column of one repeated value takes almost nothing in the file
            _check_size(max(sum(groups), 8 * file.metadata.num_rows * max(1, len(wanted))), memory, where)
            table = file.read(columns=wanted)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{where} cannot be read as Parquet ({brief(' '.join(str(error).split()))})") from error
    if table.num_rows == 0:
        raise DataError(f"{where} has no rows")
    usable = {name: values for name in wanted if (values := _from_arrow(table[name])) is not None}
    unusable = {name: str(table[name].type) for name in wanted if name not in usable}
    return Table(usable, names, unusable)


def _from_arrow(column: Any) -> _Array | None:
    """Return a column as text, or as numbers with NaN for missing ones; None for any other type."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        return _from_arrow(column.cast(kind.value_type))
    if types.is_string(kind) or types.is_large_string(kind):
        return np.array([text or "" for text in column.to_pylist()], dtype=np.str_)
    if types.is_boolean(kind) or types.is_integer(kind):
        plain = column.cast(pyarrow.uint8()) if types.is_boolean(kind) else column
        whole = plain if not column.null_count else plain.cast(pyarrow.float64(), safe=False)
        return np.asarray(whole.to_numpy())
    if types.is_floating(kind) or types.is_decimal(kind):
        return np.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy())
    return None
