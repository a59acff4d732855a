"""Summary of a data set: examples per class and split, as one line, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from runner.errors import brief

if TYPE_CHECKING:
    from runner.engine.contracts import Data

# Classes that the line lists by name
_MOST_CLASSES = 12
# Letters of a class name in the line
_NAME_LENGTH = 24


@dataclass(frozen=True)
class Found:
    """Examples per class (K,) of each split, and of all that is there but for a test split that stands apart.

    `counts` has None for a split that is not read before it is needed, and no entry for one that does not exist.
    `remarks` say where a split comes from ("split from train"). `among` is the number of classes of which K are used,
    `no_test` the reason why there is no test split.
    """

    total: Sequence[int]
    counts: Mapping[str, Sequence[int] | None]
    remarks: Mapping[str, str] = field(default_factory=dict)
    among: int | None = None
    no_test: str | None = None

    def line(self, classes: Sequence[str], noun: str) -> str:
        """Return one line that says what was found; `noun` is what the examples are ("images")."""
        of = f" of {self.among}" if self.among not in (None, len(classes)) else ""
        splits = ", ".join(self._split(name) for name in ("train", "val", "test"))
        return f"found {sum(self.total)} {noun} in {len(classes)}{of} classes ({self._per_class(classes)}): {splits}"

    def _per_class(self, classes: Sequence[str]) -> str:
        """Return the examples of each class, or their range if there are many classes."""
        if len(classes) <= _MOST_CLASSES:
            pairs = zip(classes, self.total, strict=True)
            return ", ".join(f"{brief(name, _NAME_LENGTH)} {count}" for name, count in pairs)
        low, high = min(self.total), max(self.total)
        return f"{low} each" if low == high else f"{low} to {high} each"

    def _split(self, name: str) -> str:
        """Return the number of examples of a split, with the remark about it."""
        remark = f" ({self.remarks[name]})" if name in self.remarks else ""
        if name not in self.counts:
            return f"no {name}{remark}"
        counts = self.counts[name]
        return f"{name} {'not read yet' if counts is None else sum(counts)}{remark}"


def count_labels(labels: Tensor, classes: int) -> list[int]:
    """Return the number of examples of each class, of labels (N,)."""
    counts: list[int] = labels.bincount(minlength=classes).tolist()
    return counts


@dataclass(frozen=True)
class DataSummary:
    """Summary of a run's data: the line at its start, its entry in environment.json, and a table row per class.

    `notes` are lines about what is left out.
    """

    found: Found
    classes: tuple[str, ...]
    noun: str
    notes: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return the line that says what was found."""
        return self.found.line(self.classes, self.noun)

    def as_json(self) -> dict[str, Any]:
        """Return the line, the class names, and examples per class in each split."""
        counts = {split: None if found is None else list(found) for split, found in self.found.counts.items()}
        return {"found": self.line, "classes": list(self.classes), "examples": counts}

    def rows(self) -> list[dict[str, Any]]:
        """Return a table row per class with its examples in each split that is read, and a last row with the sums."""
        counts = self.counts
        rows = [
            {"label": label, "class": name, **{split: found[label] for split, found in counts.items()}}
            for label, name in enumerate(self.classes)
        ]
        return [*rows, {"label": None, "class": "all", **{split: sum(found) for split, found in counts.items()}}]

    @property
    def counts(self) -> dict[str, Sequence[int]]:
        """Return the examples per class of each split that is read."""
        return {split: found for split, found in self.found.counts.items() if found is not None}


def summarize(data: Data) -> DataSummary:
    """Return the summary of a data set."""
    noun = "examples" if data.shape[1:] == (1, 1) else "images"
    return DataSummary(found_in(data), data.classes, noun, data.notes)


def found_in(data: Data) -> Found:
    """Return the number of examples: as the data set gives it, or counted in the splits that are open."""
    if data.found is not None:
        return data.found
    train, val = (count_labels(split.labels, len(data.classes)) for split in (data.train, data.val))
    test: dict[str, None] = {} if data.test is None else {"test": None}
    return Found([a + b for a, b in zip(train, val, strict=True)], {"train": train, "val": val, **test})
