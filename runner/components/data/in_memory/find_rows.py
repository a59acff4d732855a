"""The check of examples in memory for copies: equal examples in several splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from runner.components.data.copies import Copy, Duplicates, Examples, check_copies, kept_places, left_out_line
from runner.engine.contracts import Images
from runner.errors import DataError


@dataclass(frozen=True)
class Checked:
    """The splits after the check, lines about what was found, and the number of examples left out of a split."""

    splits: Mapping[str, Images]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def check_rows(
    splits: Mapping[str, Images], classes: Sequence[str], mode: Duplicates, name: Callable[[str, int], str]
) -> Checked:
    """Return the splits, without copies if `mode` is `drop`: the test split keeps all, training gives up the most.

    `name` gives the words for an example of a split in messages.

    Raises:
        DataError: Copies are in several splits and `mode` is `error`, or without them a split or a class is empty.
    """
    if mode == "ignore":
        return Checked(splits)
    where = [(split, place) for split, part in splits.items() for place in range(len(part.labels))]
    examples = Examples(
        splits=[split for split, _ in where],
        labels=[label for part in splits.values() for label in part.labels.tolist()],
        name=lambda number: name(*where[number]),
        noun="images" if splits["train"].pixels.shape[2:] != (1, 1) else "examples",
    )
    groups = _equal_rows(list(splits.values()))
    notes = check_copies(examples, groups, classes, mode)
    if mode != "drop" or not groups:
        return Checked(splits, notes)
    kept = {split: torch.tensor(kept_places(examples, groups, split), dtype=torch.int64) for split in ("train", "val")}
    left_out = {split: lost for split, places in kept.items() if (lost := len(splits[split].labels) - len(places))}
    if not left_out:
        return Checked(splits, notes)
    after = {split: part.part(kept[split]) if split in left_out else part for split, part in splits.items()}
    _check_remaining(splits["train"], after, classes, examples.noun)
    return Checked(after, (*notes, left_out_line(left_out, examples.noun)), left_out)


def _equal_rows(parts: Sequence[Images]) -> list[list[Copy]]:
    """Return groups of at least two positions with equal examples; positions count through all splits."""
    found: dict[bytes, list[Copy]] = defaultdict(list)
    place = 0
    for part in parts:
        # -0.0 equals 0.0
        pixels = part.pixels + 0.0 if part.pixels.is_floating_point() else part.pixels
        for row in pixels.flatten(1).contiguous().numpy():
            found[hashlib.blake2b(row.data, digest_size=16).digest()].append(Copy(place, None))
            place += 1
    return [group for group in found.values() if len(group) > 1]


def _check_remaining(before: Images, after: Mapping[str, Images], classes: Sequence[str], noun: str) -> None:
    """Raise DataError if no validation example is left, or no training example of a class that had some."""
    left = "data.duplicates: got drop, which leaves no"
    if not len(after["val"].labels):
        raise DataError(f"{left} validation {noun[:-1]}: all have copies in the test split")
    counts = [part.labels.bincount(minlength=len(classes)) for part in (before, after["train"])]
    if lost := ((counts[0] > 0) & (counts[1] == 0)).nonzero().flatten().tolist():
        raise DataError(f"{left} training {noun[:-1]} of class '{classes[lost[0]]}': all have copies in other splits")
