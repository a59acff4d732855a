"""The columns of images and labels in Parquet and Arrow files, and the labels in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.components.data.shards.arrow_files import class_names, open_arrow, reading
from runner.engine.saving.storage import printable
from runner.errors import MOST_CHOICES, ConfigError, DataError, brief, unknown

# Columns by their usual names
_LABELS = ("label", "labels", "cls", "class", "target", "y", "category", "fine_label")


@dataclass(frozen=True)
class _ArrowTable:
    """The rows of one file: labels as text (N,), and of each group of rows its first row and number of rows."""

    labels: list[str]
    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    group_bytes: float
    mapped: bool


def choose_columns(path: Path, image: str | None, label: str | None) -> tuple[str, str]:
    """Return the columns of images and labels, those of the first file where the knobs leave them open.

    Raises:
        ConfigError: A knob names a column that is not there, or the columns do not tell.
    """
    schema = open_arrow(path).schema
    names = list(schema.names)
    pictures = [name for name in names if _holds_images(schema.field(name).type)]
    for key, name in (("image", image), ("label", label)):
        if name is not None and name not in names:
            raise unknown(f"data.{key}", "column", name, names)
    if image is not None and image not in pictures:
        kind = brief(str(schema.field(image).type))
        raise DataError(f"data.image: column '{brief(image)}' is of type {kind}; expected encoded images as bytes")
    labels = [name for name in _LABELS if name in names]
    found = {"image": [image] if image else pictures, "label": [label] if label else labels}
    for key, columns in found.items():
        if len(columns) != 1:
            more = ", ..." if len(names) > MOST_CHOICES else ""
            what = "no column may be it" if not columns else f"{' and '.join(map(brief, columns))} may be it"
            hint = "; features are for data=table" if key == "image" and not columns else ""
            listed = f"columns: {brief(', '.join(names[:MOST_CHOICES]))}{more}"
            raise ConfigError(f"data.{key}: got null, and {what}; name the column ({listed}){hint}")
    return found["image"][0], found["label"][0]


def _holds_images(kind: Any) -> bool:
    """Return True for a column of bytes, or of Hugging Face's images: bytes and path."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _is_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    """Return True for a type of bytes."""
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def read_labels(path: Path, image: str, label: str) -> _ArrowTable:
    """Return the labels of a file; no image is read. Raises DataError if a column or a label is missing."""
    file = open_arrow(path)
    for name in (image, label):
        if name not in file.schema.names:
            raise DataError(f"{printable(path)}: has no column '{brief(name)}', which the first file has")
    if not _holds_images(file.schema.field(image).type):
        kind = brief(str(file.schema.field(image).type))
        raise DataError(f"{printable(path)}: column '{brief(image)}' is of type {kind}; expected images as bytes")
    words = class_names(file.schema, label)
    labels: list[str] = []
    counts: list[int] = []
    with reading(path):
        for column in file.groups(label):
            values = column.to_pylist()
            counts.append(len(values))
            labels += [_word(value, words, path, label, len(labels) + row) for row, value in enumerate(values)]
    rows = np.array(counts, np.int64)
    return _ArrowTable(labels, np.cumsum(rows) - rows, rows, file.group_bytes, file.mapped)


def _word(value: Any, words: Sequence[str] | None, path: Path, label: str, row: int) -> str:
    """Return a label as text: a class name by its number where the file has names."""
    what = f"{printable(path)}, column '{brief(label)}', row {row + 1}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"{what}: the label is {brief(repr(value))}; expected one class, as text or whole number")
    if words is None or isinstance(value, str):
        return str(value).strip()
    if not 0 <= value < len(words):
        raise DataError(f"{what}: the label is {value}; expected 0 to {len(words) - 1}, the classes of the file")
    return words[value]


def describe_cost(tables: Sequence[_ArrowTable]) -> float:
    """Return the MiB that are read for one image where groups of rows are read for each: 0 for mapped files."""
    sizes = [table.group_bytes for table in tables if not table.mapped]
    return sum(sizes) / len(sizes) / 2**20 if sizes else 0.0


def group_numbers(tables: Sequence[_ArrowTable]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (G, 3) file, number and first row of each group; and the group (N,) and the row in it (N,) of each row."""
    where = np.concatenate(
        [
            np.stack([np.full(len(table.rows), number), np.arange(len(table.rows)), table.first], 1)
            for number, table in enumerate(tables)
        ]
    ).astype(np.int64)
    counts = np.concatenate([table.rows for table in tables])
    groups = np.repeat(np.arange(len(counts)), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return where, groups, np.arange(len(groups)) - starts
