"""Tables of features: CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from runner.components.data.in_memory.array_names import ALL, SPLIT_WORDS, SPLITS
from runner.components.data.in_memory.array_values import coarse_features, to_features
from runner.components.data.in_memory.leaking_columns import leak_note
from runner.components.data.in_memory.split_examples import InMemorySettings
from runner.components.data.in_memory.table_columns import named_columns, to_columns, to_numbers
from runner.components.data.in_memory.table_file import Table, read_table
from runner.components.data.labels.class_labels import label_values, number_classes
from runner.components.data.packed_identity import file_identity
from runner.engine.contracts import Data, Images
from runner.engine.fingerprint import identified_by
from runner.engine.saving.storage import printable
from runner.errors import KEY, MOST_CHOICES, ConfigError, DataError, brief, unknown
from runner.out_of_scope import MULTI_LABEL
from runner.registry import register
from runner.roles import Aspect, FilePath, Role, Verbatim
from runner.user_folders import expand_home

_Array = NDArray[Any]
# The end of the line about several columns of labels
_SEVERAL = f"one-hot columns become one with pandas' idxmax(axis=1); {MULTI_LABEL}"


@register("data")
@identified_by(file_identity)
def table(
    settings: InMemorySettings,
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
    label: Annotated[str | None, Verbatim()],
    split: Annotated[str | None, Verbatim()],
    ignore: list[str],
    one_hot: list[str],
    missing: Literal["error", "drop"],
) -> Data:
    """Load a table, one example per row: a CSV file with a header, or a Parquet file (which needs pyarrow).

    Every column but `label`, `split` and those in `ignore` is a feature, and must hold numbers, or true and false. Text
    is rejected unless `one_hot` names the column: then each value becomes a feature of 0 and 1. Features are float32
    with one channel each and 1x1 pixels, so that `preprocess=standardize` standardizes each. Splits that the table does
    not name are fixed, stratified parts by row, whatever the seed.

    Returns:
        Features (N, D, 1, 1) float32, classes in natural order of their names.

    Raises:
        ConfigError, DataError: A column or value is missing, unknown or of the wrong type; pyarrow is missing.
    """
    path = expand_home(root)
    where = f"data.root: {printable(path)}"
    found = read_table(path, ignore, settings.memory)
    target = _check_columns(found, label, split, ignore, one_hot, where)
    used = {name: column for name, column in found.columns.items() if name not in (target, split, *ignore)}
    features = to_columns(used, one_hot, where)
    labels = _label_column(found.columns[target])
    kept, notes = _complete_rows({**features.missing, target: _is_missing(labels)}, missing, where)
    rows = _rows_by_split(None if split is None else found.columns[split], kept, f"{where}: column '{split}'")
    classes, numbers = _number_labels(labels, rows, f"{where}: column '{brief(target)}'")
    values = {part: to_features(features.values[index], where, features.names) for part, index in rows.items()}
    examples = {part: Images(values[part], numbers[part]) for part in rows}
    lines = (*found.notes, *notes, *coarse_features(features.values[kept], features.names))
    part = next(iter(rows))
    lines += leak_note(features.values[rows[part]], features.names, numbers[part].numpy(), target, one_hot)
    return settings.build(examples, classes, lines, lambda part, place: f"row {rows[part][place] + 1}")


def _number_labels(labels: _Array, rows: Mapping[str, _Array], where: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the class names, and the labels (N,) int64 of the rows of each split."""
    values = {part: label_values(labels[index], where, negative=True) for part, index in rows.items()}
    return number_classes(values, dict.fromkeys(rows, where))


def _check_columns(
    found: Table, label: str | None, split: str | None, ignore: list[str], one_hot: list[str], where: str
) -> str:
    """Return the column of the labels.

    Raises ConfigError for a column that the table does not have, DataError for one that is neither numbers nor text.
    """
    names = found.names
    if label is None:
        more = f", ... {len(names) - MOST_CHOICES} more" if len(names) > MOST_CHOICES else ""
        listed = brief(", ".join(names[:MOST_CHOICES]), KEY)
        raise ConfigError(f"data.label: got null, must be the column of the classes (columns: {listed}{more})")
    asked = {"label": [label], "split": [split] if split else [], "ignore": ignore, "one_hot": one_hot}
    use: dict[str, str] = {}
    for key, given in asked.items():
        for name in given:
            if name not in names:
                if key == "label" and _are_columns(name, names):
                    raise ConfigError(f"data.label: got '{brief(name)}', must be one column; {_SEVERAL}")
                raise unknown(f"data.{key}", "column", name, names)
            if use.setdefault(name, key) != key:
                raise ConfigError(f"data.{key}: got '{brief(name)}', which data.{use[name]} names, too; choose one")
    for name, kind in found.unusable.items():
        if name not in ignore:
            raise DataError(
                f"{where}: column '{brief(name)}' is of type {brief(kind)}, must be numbers or text; data.ignore=[...] "
                "leaves columns out"
            )
    return label


def _are_columns(label: str, names: Sequence[str]) -> bool:
    """Return True for several columns as a list."""
    listed = [name.strip(" '\"") for name in label.strip("[]()").split(",")]
    return len(listed) > 1 and all(name in names for name in listed)


def _label_column(column: _Array) -> _Array:
    """Return labels as numbers if they are written as 1.0, else unchanged."""
    if column.dtype.kind == "U" and (np.char.find(column, ".") >= 0).any():
        numbers = to_numbers(column)
        return column if numbers is None else numbers
    return column


def _is_missing(labels: _Array) -> _Array:
    """Return True for each label (N,) that is missing."""
    return np.asarray(labels == "" if labels.dtype.kind == "U" else labels != labels)


def _complete_rows(
    missing: Mapping[str, _Array], rule: Literal["error", "drop"], where: str
) -> tuple[_Array, tuple[str, ...]]:
    """Return the positions of the rows without missing values, and a line about the others; DataError with `error`."""
    counts = {name: int(rows.sum()) for name, rows in missing.items() if rows.any()}
    broken = np.logical_or.reduce(list(missing.values()))
    if not counts:
        return np.arange(len(broken)), ()
    listed = named_columns(counts, "missing")
    if rule == "error":
        raise DataError(
            f"{where}: column {listed}, first in row {int(broken.argmax()) + 1}; data.missing=drop leaves out "
            f"{int(broken.sum())} of {len(broken)} rows, data.ignore=[...] columns"
        )
    if broken.all():
        raise DataError(f"{where}: every row has missing values: column {listed}")
    line = f"data: left out {int(broken.sum())} of {len(broken)} rows with missing values: column {listed}"
    return np.flatnonzero(~broken), (line,)


def _rows_by_split(column: _Array | None, kept: _Array, where: str) -> dict[str, _Array]:
    """Return the positions of the kept rows of each split, those to train on first; all of them without a column."""
    if column is None:
        return {ALL: kept}
    words = np.char.lower(column.astype(np.str_))[kept]
    for word in np.unique(words).tolist():
        if word not in SPLIT_WORDS:
            raise DataError(f"{where}: has value '{brief(word)}', must be train, val or test")
    splits = np.array([SPLIT_WORDS[word] for word in words.tolist()])
    found = {split: kept[splits == split] for split in SPLITS if (splits == split).any()}
    if "train" not in found:
        raise DataError(f"{where}: no row is of the training split ('train')")
    return found
