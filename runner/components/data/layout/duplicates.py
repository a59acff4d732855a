"""The check of a folder for copies: images with the same bytes or the same pixels in several splits.

The files of the test split are read for this check too. Nothing else of a run depends on what is in them, except that
`drop` leaves their copies out of training and validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from runner.components.data.copies import Duplicates, Examples, check_copies, kept_places, left_out_line
from runner.components.data.layout.find_copies import find_copies
from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.listing import Listing
from runner.errors import escaped


@dataclass(frozen=True)
class Checked:
    """The splits after the check, lines about what was found, and the number of images left out of a split."""

    train: Listing
    val: Listing
    test: Listing | None
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def check_duplicates(
    root: Path, train: Listing, val: Listing, test: Listing | None, classes: Sequence[str], mode: Duplicates
) -> Checked:
    """Return the splits, without copies if `mode` is `drop`: the test split keeps all, training gives up the most.

    Raises DataError for copies in several splits if `mode` is `error`.
    """
    if mode == "ignore":
        return Checked(train, val, test)
    splits = {"train": train, "val": val, **({} if test is None else {"test": test})}
    files = [file for listing in splits.values() for file in listing.files]
    names = relative_paths(root, files)
    examples = Examples(
        splits=[split for split, listing in splits.items() for _ in listing.files],
        labels=[label for listing in splits.values() for label in listing.labels.tolist()],
        name=lambda place: escaped(names[place]),
        noun="images",
    )
    copies = find_copies(root, files)
    notes = check_copies(examples, copies, classes, mode)
    if mode != "drop":
        return Checked(train, val, test, notes)
    kept = {
        name: splits[name].part(torch.tensor(kept_places(examples, copies, name), dtype=torch.int64))
        for name in ("train", "val")
    }
    lost = {name: len(splits[name].files) - len(part.files) for name, part in kept.items()}
    if not any(lost.values()):
        return Checked(train, val, test, notes)
    left_out = {name: count for name, count in lost.items() if count}
    return Checked(kept["train"], kept["val"], test, (*notes, left_out_line(left_out, "images")), left_out)
