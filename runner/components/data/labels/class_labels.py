"""Labels as people store them, numbers or names, as class names and class numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.components.data.labels.one_class_each import check_one_class_each
from runner.errors import DataError, brief
from runner.out_of_scope import DETECTION, MULTI_LABEL, REGRESSION, SOFT_LABELS

_Array = NDArray[Any]
_WHOLE = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"([0-9]+)")


def label_values(labels: _Array, where: str, *, negative: bool) -> _Array:
    """Return labels as whole numbers (N,) int64 or as text (N,).

    Args:
        labels: Whole numbers or text, (N,) or (N, 1), or one-hot rows (N, K).
        where: The array or column, for messages.
        negative: False refuses negative numbers, unless the labels are -1 and 1 only.

    Raises:
        DataError: The labels are missing, not whole, negative, or of another shape.
    """
    found = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if found.ndim == 2 and found.dtype.kind in "biuf":
        return _from_one_hot(found, where)
    if found.ndim != 1:
        raise DataError(
            f"{where}: labels have shape {labels.shape}, must be (N,), (N, 1) or one-hot (N, classes); {DETECTION}"
        )
    if found.dtype.kind in "US":
        return _as_text(found, where)
    if found.dtype.kind == "f":
        found = _whole(found, where)
    if found.dtype.kind == "u" and len(found) and found.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where}: label {found.max()} is too large for a class number")
    values = found.astype(np.int64)
    if not negative and len(values) and values.min() < 0 and not np.isin(values, (-1, 1)).all():
        place = int((values < 0).argmax())
        raise DataError(f"{where}: label {values[place]} at position {place}, must be >= 0, or -1 and 1 only")
    return values


def number_classes(labels: Mapping[str, _Array], where: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the class names of the first split, in natural order, and the labels (N,) int64 of each split.

    Raises:
        DataError: There are fewer than two classes, or another split has a class that the first does not have.
    """
    distinct = {split: np.unique(values, return_inverse=True) for split, values in labels.items()}
    named = {split: [str(value) for value in values.tolist()] for split, (values, _) in distinct.items()}
    first = next(iter(labels))
    classes = natural_order(named[first])
    if len(classes) < 2:
        only = f"only one class, '{brief(classes[0])}'" if classes else "no labels"
        raise DataError(f"{where[first]}: has {only}; must have at least two classes")
    counts = np.bincount(distinct[first][1].reshape(-1)).tolist()
    check_one_class_each(dict(zip(named[first], counts, strict=True)), where[first])
    place = {name: number for number, name in enumerate(classes)}
    for split, names in named.items():
        for name in names:
            if name not in place:
                raise DataError(f"{where[split]}: class '{brief(name)}' is not among the training labels")
    numbers = {
        split: torch.tensor([place[name] for name in named[split]], dtype=torch.int64)[torch.from_numpy(inverse)]
        for split, (_, inverse) in distinct.items()
    }
    return tuple(classes), numbers


def natural_order(names: Iterable[str]) -> list[str]:
    """Return names sorted with the numbers in them as numbers: 2 before 10, -1 before 1, "item 9" before "item 10"."""
    names = list(names)
    if all(map(_WHOLE.fullmatch, names)):
        # Of negative numbers the larger ones come first
        negative = sorted((name for name in names if name.startswith("-")), key=_by_numbers, reverse=True)
        return [*negative, *sorted((name for name in names if not name.startswith("-")), key=_by_numbers)]
    return sorted(names, key=_by_numbers)


def _by_numbers(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that compares the numbers in a name by their values.

    Python refuses to read numbers of more than 4,300 digits, so digits are compared: more of them are a larger number.
    """
    parts = _NUMBER.split(name)
    # The odd parts are the numbers
    numbers = (part.lstrip("0") if i % 2 else part for i, part in enumerate(parts))
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(numbers)], name


def _from_one_hot(rows: _Array, where: str) -> _Array:
    """Return the position of the one in each row."""
    if not (np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()):
        shares = rows.min() >= 0 and np.allclose(rows.sum(1), 1, atol=1e-3)
        scope = MULTI_LABEL if np.isin(rows, (0, 1)).all() else SOFT_LABELS if shares else REGRESSION
        raise DataError(
            f"{where}: labels have shape {rows.shape}, and rows that are not one-hot; must be one class each; {scope}"
        )
    return np.asarray(rows.argmax(1), np.int64)


def _as_text(labels: _Array, where: str) -> _Array:
    """Return labels as text without spaces around; bytes are UTF-8."""
    try:
        text = np.char.strip(np.char.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: labels are bytes that are not UTF-8 text") from error
    empty = np.flatnonzero(text == "")
    if len(empty):
        raise DataError(f"{where}: {len(empty)} labels are missing, the first at position {empty[0]}")
    return text


def _whole(labels: _Array, where: str) -> _Array:
    """Return whole numbers that are stored as floats."""
    missing = np.flatnonzero(np.isnan(labels))
    if len(missing):
        raise DataError(f"{where}: {len(missing)} labels are missing (NaN), the first at position {missing[0]}")
    broken = np.flatnonzero((labels != np.round(labels)) | (np.abs(labels) > 2**53))
    if len(broken):
        raise DataError(
            f"{where}: label {labels[broken[0]]:g} at position {broken[0]} is not a whole number; must be a class, not "
            f"a quantity: {REGRESSION}"
        )
    return labels
