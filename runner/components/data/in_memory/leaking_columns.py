"""Columns of a table from which the label can be read: a copy under another name, or the rest of a one-hot coding."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.errors import KEY, brief
from runner.printing import counted

_Array = NDArray[Any]
# With fewer rows per category, categories may fit by chance
_FEWEST = 5
# Chance that any of the columns fits
_CHANCE = 1e-4
# Rows that rule out most columns
_FIRST = 1000
# Columns that the line names at most
_MOST_NAMES = 6
_PREFIX = re.compile(r"(.+)[_.\-= ]")


def leak_note(
    values: _Array, names: Sequence[str], labels: _Array, label: str, one_hot: Sequence[str]
) -> tuple[str, ...]:
    """Return a line about features (N, D) that tell the label, by their columns, of which some are in `one_hot`."""
    found = [names[column] for column in leaking_columns(values, names, labels, label)]
    if not found:
        return ()
    columns = dict.fromkeys(next((each for each in one_hot if name.startswith(f"{each}=")), name) for name in found)
    listed = ",".join(list(columns)[:_MOST_NAMES]) + (",..." if len(columns) > _MOST_NAMES else "")
    return (
        f"data: the label '{brief(label)}' can be read from {counted(len(columns), 'column')} in every row; "
        f"data.ignore=[{brief(listed, KEY)}] leaves out what is not known when you predict",
    )


def leaking_columns(values: _Array, names: Sequence[str], labels: _Array, label: str) -> list[int]:
    """Return the columns that tell the label of each row: one for one, or as a one-hot coding of it.

    A feature that separates classes with values of its own is none of them: it has more values than there are classes.

    Args:
        values: The features (N, D).
        names: Their names.
        labels: The class numbers (N,).
        label: The name of the label's column.
    """
    counts = np.bincount(labels)
    orders = math.lgamma(len(labels) + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
    if len(counts) < 2 or orders < math.log(values.shape[1] / _CHANCE):
        return []
    found = set(_copies(values, labels, len(counts)))
    bits = np.isin(values[:_FIRST], (0, 1)).all(0)
    binary = [column for column in np.flatnonzero(bits).tolist() if column not in found]
    prefixes = [_prefix(names[column]) for column in binary]
    for prefix in {each for each in prefixes if each}:
        group = [column for column, each in zip(binary, prefixes, strict=True) if each == prefix]
        if len(group) > 1 and _tells(values, group, labels, related=prefix == _prefix(label)):
            found.update(group)
    for one in (0, 1) if len(counts) == 2 else ():
        # The rest of a one-hot coding, whatever its columns are called
        never = ~values[:_FIRST][labels[:_FIRST] == one].any(0)
        rest = [column for column in binary if never[column]]
        if len(rest) > 1 and _tells(values, rest, labels, related=True):
            found.update(rest)
    return sorted(found)


def _copies(values: _Array, labels: _Array, classes: int) -> list[int]:
    """Return the columns that have one value for each class, and no other."""
    firsts = np.array([int((labels == number).argmax()) for number in range(classes)])
    expected = values[firsts]
    distinct = (np.diff(np.sort(expected, 0), axis=0) != 0).all(0)
    alike = distinct & (values[:_FIRST] == expected[labels[:_FIRST]]).all(0)
    return [
        column for column in np.flatnonzero(alike).tolist() if (values[:, column] == expected[labels, column]).all()
    ]


def _prefix(name: str) -> str:
    """Return a name without its last part, empty if it has one part only."""
    found = _PREFIX.match(name)
    return found[1] if found else ""


def _tells(values: _Array, group: list[int], labels: _Array, *, related: bool) -> bool:
    """Return True if columns of zeros and ones code a category that tells the label.

    Args:
        values: The features (N, D).
        group: The columns.
        labels: The class numbers (N,).
        related: The label belongs to the group, so that several categories may be of one class.
    """
    # Most groups are ruled out by the first rows
    if _class_of_categories(values[:_FIRST, group], labels[:_FIRST]) is None:
        return False
    classes = _class_of_categories(values[:, group], labels)
    if classes is None or len(labels) < _FEWEST * len(classes):
        return False
    return related or len(classes) == len(np.unique(labels))


def _class_of_categories(columns: _Array, labels: _Array) -> _Array | None:
    """Return the class of each category, the columns with at most a one per row; None if one is of several classes."""
    ones = columns.sum(1)
    if not (((columns == 0) | (columns == 1)).all() and (ones <= 1).all()):
        return None
    used, categories = np.unique(np.where(ones == 1, columns.argmax(1), columns.shape[1]), return_inverse=True)
    classes = np.zeros(len(used), np.int64)
    classes[categories] = labels
    return classes if (classes[categories] == labels).all() else None
