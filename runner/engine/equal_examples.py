"""How many validation examples equal a training example, as a run records it; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The key of the counts in what environment.json says of the data
EQUAL = "equal_examples"
_NAMES = ("val_in_train", "within_val", "val", "train")


@dataclass(frozen=True, kw_only=True)
class EqualExamples:
    """Equal examples of the splits.

    Attributes:
        val_in_train: The validation examples that equal a training example.
        within_val: The validation examples that equal an earlier validation example: usual if there are few values.
        val: All validation examples, at least 1.
        train: All training examples.
    """

    val_in_train: int
    within_val: int
    val: int
    train: int

    @property
    def share(self) -> float:
        """The share of the validation examples that equal a training example."""
        return self.val_in_train / self.val

    @property
    def usual(self) -> float:
        """The share that a split at random has, as far as the equal examples within the validation split say.

        If two examples are equal with probability p, n validation examples have n^2 p / 2 equal pairs, and each of them
        equals one of m training examples with probability m p.
        """
        return 2 * self.within_val * self.train / self.val**2

    def to_record(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        return {name: getattr(self, name) for name in _NAMES}


def equal_from_record(record: Any) -> EqualExamples | None:
    """Return the counts that `to_record` wrote, None if there are none or they are malformed."""
    if not isinstance(record, Mapping):
        return None
    counts: dict[str, Any] = {name: record.get(name) for name in _NAMES}
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return None
    found = EqualExamples(**counts)
    return found if max(found.val_in_train, found.within_val) <= found.val and found.val else None
