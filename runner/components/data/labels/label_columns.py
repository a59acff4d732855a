"""The columns of a CSV file that hold file, label, split and group of an image, and one-hot labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.components.data.labels.csv_table import Table
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, brief, escaped, shown
from runner.out_of_scope import MULTI_LABEL
from runner.spelling import nearest

_FILE_NAMES = (
    *("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_name", "image_path", "img"),
    *("image_id", "imageid", "img_id", "id", "id_code", "name", "uuid"),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "classname", "category", "category_name", "target", "species", "breed"),
    *("diagnosis", "level", "y", "label_name", "class_id", "category_id"),
)
_SPLIT_NAMES = ("split", "subset", "set", "fold", "partition", "usage")
# Cells of one-hot columns
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True}
# Columns that one line names at most
_MOST_NAMES = 8


@dataclass(frozen=True)
class Row:
    """One row of a CSV file: its number, and the cells of an image. A label of None: the cell is empty."""

    number: int
    file: str
    label: str | None
    split: str | None
    group: str | None


def read_rows(table: Table, columns: Sequence[str | int] | None, groups: str | None) -> list[Row]:
    """Return the images of a CSV file.

    Args:
        table: The file.
        columns: Columns of file, label and split, by name or by number from 0; None for those with the usual names.
            Without a label, all columns but the file's and the group's are classes, each with a 1 in its rows.
        groups: The column of the groups; None for a table without.

    Raises:
        ConfigError: There is no such column.
        DataError: There is no column with a usual name, or a row does not have exactly one class.
    """
    numbered = columns is not None and all(isinstance(column, int) for column in columns)
    header = None if numbered else table.rows[0]
    rows = range(0 if header is None else 1, len(table.rows))
    if not rows:
        raise DataError(f"{printable(table.path)}: has a header and no rows")
    group = None if groups is None else _column(table, groups, "data.groups")
    found = _by_usual_names(table) if columns is None else [_column(table, each, "data.columns") for each in columns]
    if len(set(found)) < len(found):
        raise ConfigError(f"data.columns: got {shown(columns)}, must be different columns")
    file = found[0]
    label, split = (*found[1:], None, None)[:2]
    labels = _one_hot(table, rows, file, group) if label is None else [table.rows[row][label] or None for row in rows]

    def cell(row: int, column: int | None) -> str | None:
        return None if column is None else table.rows[row][column]

    return [
        Row(row, table.rows[row][file], text, cell(row, split), cell(row, group))
        for row, text in zip(rows, labels, strict=True)
    ]


def is_column(table: Table, name: str) -> bool:
    """Return True if the header has a column of this name."""
    return name in table.rows[0]


def _column(table: Table, column: str | int, key: str) -> int:
    """Return the number of a column."""
    header = table.rows[0]
    if isinstance(column, int):
        if 0 <= column < len(header):
            return column
        raise ConfigError(f"{key}: got {column}, must be from 0 to {len(header) - 1}: {table.where(0)}")
    if header.count(column) == 1:
        return header.index(column)
    if column in header:
        raise DataError(f"{table.where(0)}: has {header.count(column)} columns '{escaped(column)}'")
    raise ConfigError(f"{key}: unknown column '{escaped(brief(column))}' ({_choices(table, column)})")


def _choices(table: Table, near: str) -> str:
    """Return the columns of a table, the nearest first."""
    ranked = nearest(near, table.rows[0][:1000])
    more = f", ... {len(table.rows[0]) - _MOST_NAMES} more" if len(table.rows[0]) > _MOST_NAMES else ""
    listed = ", ".join(escaped(brief(name, 40)) for name in ranked[:_MOST_NAMES])
    return f"{table.where(0)}: {listed}{more}"


def _by_usual_names(table: Table) -> list[int]:
    """Return the columns of file, label and split by the usual names; the file's alone for one-hot labels."""
    by_name = {name.lower().replace(" ", "_"): number for number, name in reversed(list(enumerate(table.rows[0])))}
    file, label, split = (
        next((by_name[name] for name in names if name in by_name), None)
        for names in (_FILE_NAMES, _LABEL_NAMES, _SPLIT_NAMES)
    )
    if file is not None and label is not None:
        return [file, label] if split is None else [file, label, split]
    others = [number for number in range(len(table.rows[0])) if number != file]
    second = table.rows[1] if len(table.rows) > 1 else []
    if file is not None and len(others) > 1 and second and all(second[number] in _BITS for number in others):
        return [file]
    what = "files" if file is None else "labels"
    raise DataError(
        f"data.columns: no column with a usual name for the {what}; choose data.columns=[file,label] by name, or by "
        f"number from 0 if there is no header ({_choices(table, 'file' if file is None else 'label')})"
    )


def _one_hot(table: Table, rows: range, file: int, group: int | None) -> list[str | None]:
    """Return the class of each row: the column with the only 1; None for a row without."""
    columns = [number for number in range(len(table.rows[0])) if number not in (file, group)]
    if len(columns) < 2:
        raise ConfigError(
            f"data.columns: names no column of labels; expected [file, label] ({_choices(table, 'label')})"
        )
    labels: list[str | None] = []
    for row in rows:
        cells = table.rows[row]
        ones = []
        for number in columns:
            if cells[number] not in _BITS:
                name, cell = escaped(brief(table.rows[0][number])), escaped(brief(cells[number]))
                raise DataError(f"{table.where(row)}: got '{cell}' in column '{name}' of a class, must be 0 or 1")
            if _BITS[cells[number]]:
                ones.append(table.rows[0][number])
        if len(ones) > 1:
            named = ", ".join(f"'{escaped(name)}'" for name in ones[:_MOST_NAMES])
            raise DataError(f"{table.where(row)}: has {len(ones)} classes ({named}), must have one; {MULTI_LABEL}")
        labels.append(ones[0] if ones else None)
    return labels
