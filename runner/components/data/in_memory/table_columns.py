"""The columns of a table as features: numbers, true and false, and categories as one feature per value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.components.data.labels.class_labels import natural_order
from runner.errors import DataError, brief

_Array = NDArray[Any]
# Cells that stand for a missing number, in lower case: those of pandas, and the "?" of UCI's data sets
_MISSING = ("", "?", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none")
_TRUTH = {"true": 1.0, "false": 0.0}
# Values of a column that becomes one feature per value
_MAX_CATEGORIES = 1000
# Columns that one line names at most
_MOST_NAMES = 6


@dataclass(frozen=True)
class _Features:
    """The features (N, D) float64 with their names, and for each column the rows (N,) in which it is missing."""

    values: _Array
    names: tuple[str, ...]
    missing: Mapping[str, _Array]


def to_columns(columns: Mapping[str, _Array], one_hot: Collection[str], where: str) -> _Features:
    """Return columns as features; a column in `one_hot` gives a feature `column=value` for each of its values.

    Raises:
        DataError: A column is neither numbers nor in `one_hot`; the message names it.
    """
    found: dict[str, _Array] = {}
    missing: dict[str, _Array] = {}
    text: dict[str, _Array] = {}
    for name, column in columns.items():
        if name in one_hot:
            features, missing[name] = _categories(name, column, where)
            found |= features
        elif (numbers := to_numbers(column)) is None:
            text[name] = column
        else:
            found[name], missing[name] = numbers, np.isnan(numbers)
    if text:
        raise DataError(_not_numbers(text, where))
    if not found:
        raise DataError(f"{where}: has no columns to use as features")
    return _Features(np.stack(list(found.values()), 1), tuple(found), missing)


def to_numbers(column: _Array) -> _Array | None:
    """Return a column (N,) as float64 with NaN for missing numbers, None if it has other text."""
    if column.dtype.kind != "U":
        return column.astype(np.float64)
    lower = np.char.lower(column)
    empty = np.isin(lower, _MISSING)
    given = lower[~empty]
    found = np.full(len(column), np.nan)
    if len(given) and np.isin(given, list(_TRUTH)).all():
        found[~empty] = given == "true"
        return found
    # Python reads 1_000 as a number; in a table it is text
    if (np.char.find(given, "_") >= 0).any():
        return None
    try:
        found[~empty] = given.astype(np.float64)
    except ValueError:
        return None
    return found


def named_columns(counts: Mapping[str, int], what: str) -> str:
    """Return columns with a number each, at most a few: `'age' (177 missing values), 'deck' (688)`."""
    shown = [f"'{brief(name)}' ({count})" for name, count in counts.items()]
    shown[0] = f"{shown[0][:-1]} {what})"
    more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
    return ", ".join(shown[:_MOST_NAMES]) + more


def _categories(name: str, column: _Array, where: str) -> tuple[dict[str, _Array], _Array]:
    """Return a feature of zeros and ones for each value of a column, and the rows in which it is missing."""
    text = column if column.dtype.kind == "U" else np.array([_number_text(each) for each in column.tolist()])
    missing = text == ""
    values = natural_order(np.unique(text[~missing]).tolist())
    if len(values) > _MAX_CATEGORIES:
        raise DataError(f"{where}: column '{brief(name)}' has {len(values)} values, must be <= {_MAX_CATEGORIES}")
    return {f"{name}={value}": (text == value).astype(np.float64) for value in values}, missing


def _number_text(value: float) -> str:
    """Return a number as the name of a category, "" for NaN; 2.0 and 2 are the same."""
    return "" if value != value else f"{value:.12g}"


def _not_numbers(text: Mapping[str, _Array], where: str) -> str:
    """Return the message about columns of text."""
    listed = named_columns({name: len(np.unique(column)) for name, column in text.items()}, "values")
    some = ",".join(list(text)[:_MOST_NAMES])
    return (
        f"{where}: not numbers: {listed}; data.one_hot=[{brief(some)}] makes a feature of each value, "
        "data.ignore=[...] leaves columns out"
    )
