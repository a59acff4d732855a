"""Labels that are no classes: several in one cell, and quantities."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from runner.errors import DataError, brief, escaped
from runner.out_of_scope import MULTI_LABEL, REGRESSION

# What separates several labels in a cell
_SEPARATORS = (r"\s*[;|,]\s*", r"\s+")
# As many classes may have hardly any examples each, such as the identities of faces
_MANY = 20
_NAMES = "where the numbers are classes, write them as words, for example id7"


def check_one_class_each(counts: Mapping[str, int], where: str) -> None:
    """Raise DataError for labels that are several classes each, or quantities.

    Args:
        counts: The number of training examples of each label.
        where: The place of the labels, for the message.
    """
    for label in counts:
        if _is_several(label, counts):
            raise DataError(f"{where}: label '{escaped(brief(label))}': {MULTI_LABEL}")
    if _are_quantities(counts):
        some = escaped(brief(next(iter(counts))))
        raise DataError(
            f"{where}: has {len(counts)} different numbers in {sum(counts.values())} examples, such as {some}; "
            f"{REGRESSION}; {_NAMES}"
        )


def _is_several(label: str, names: Collection[str]) -> bool:
    """Return True for a list in brackets, and for words that are all labels of other examples."""
    if re.fullmatch(r"\[.*\]|\{.*\}", label, re.S):
        return True
    parts = (re.split(each, label) for each in _SEPARATORS)
    return any(len(each) > 1 and all(part in names for part in each) for each in parts)


def _are_quantities(counts: Mapping[str, int]) -> bool:
    """Return True if most examples have a number of their own, and the numbers do not count classes: 0, 1, 2, ..."""
    fewest = sum(counts.values()) / 2
    if len(counts) <= fewest or not all(re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", name) for name in counts):
        return False
    numbers = sorted(map(float, counts))
    if any(not number.is_integer() for number in numbers):
        return True
    return len(counts) > _MANY and numbers not in ([*range(len(numbers))], [*range(1, len(numbers) + 1)])
