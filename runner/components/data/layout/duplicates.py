"""The check for copies: images with the same bytes or the same pixels in several splits, or with several labels.

The files of the test split are read for this check too. Nothing else of a run depends on what is in them, except that
`drop` leaves their copies out of training and validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from runner.components.data.layout.find_copies import Copy, find_copies
from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.layout_settings import Duplicates
from runner.components.data.layout.listing import Listing
from runner.errors import DataError, escaped

# Pairs of files that one line names at most
_MOST_PAIRS = 3
# The split of which images are counted, and that with their copies
_PAIRS = (("test", "train"), ("test", "val"), ("val", "train"))


@dataclass(frozen=True)
class Checked:
    """The splits after the check, lines about what was found, and the number of images left out of a split."""

    train: Listing
    val: Listing
    test: Listing | None
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Images:
    """All images: name, split and label of each."""

    names: list[str]
    splits: list[str]
    labels: list[int]


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
    images = _Images(
        names=relative_paths(root, files),
        splits=[split for split, listing in splits.items() for _ in listing.files],
        labels=[label for listing in splits.values() for label in listing.labels.tolist()],
    )
    copies = find_copies(root, files)
    lines = _lines_across(images, copies, splits)
    if lines and mode == "error":
        raise DataError(f"data.duplicates: {'; '.join(lines)}; remove them, or choose drop or warn")
    labels = _line_about_labels(images, copies, classes)
    advice = "; data.duplicates=drop leaves them out of training" if mode == "warn" else ""
    notes = (*(f"data: {line}{advice}" for line in lines), *labels)
    if mode != "drop" or not lines:
        return Checked(train, val, test, notes)
    kept_train, kept_val = (_without(splits, name, images, copies) for name in ("train", "val"))
    lost = {"train": len(train.files) - len(kept_train.files), "val": len(val.files) - len(kept_val.files)}
    last = f"data: left out {lost['train']} training and {lost['val']} validation images (data.duplicates=drop)"
    return Checked(kept_train, kept_val, test, (*notes, last), {name: count for name, count in lost.items() if count})


def _lines_across(images: _Images, copies: Sequence[Sequence[Copy]], splits: Mapping[str, Listing]) -> list[str]:
    """Return a line for each two splits that share images."""
    lines = []
    for one, other in _PAIRS:
        pairs: list[tuple[int, int, bool]] = []
        for group in copies:
            there = [copy for copy in group if images.splits[copy.place] == other]
            for copy in group if there else ():
                if images.splits[copy.place] == one:
                    same = [each for each in there if each.content == copy.content]
                    pairs.append((copy.place, (same or there)[0].place, bool(same)))
        if pairs:
            lines.append(_line(images, sorted(pairs), one, other, len(splits[one].files)))
    return lines


def _line(images: _Images, pairs: Sequence[tuple[int, int, bool]], one: str, other: str, total: int) -> str:
    """Return what two splits share, with the first names."""
    same = sum(equal for *_, equal in pairs)
    kinds = [
        *([f"{same} with the same bytes"] if same else []),
        *([f"{len(pairs) - same} with the same pixels"] if same < len(pairs) else []),
    ]
    named = [f"{escaped(images.names[a])} = {escaped(images.names[b])}" for a, b, _ in pairs[:_MOST_PAIRS]]
    more = ["..."] if len(pairs) > _MOST_PAIRS else []
    verb = "is" if len(pairs) == 1 else "are"
    return (
        f"{len(pairs)} of {total} {one} images {verb} in {other} too, {' and '.join(kinds)} ({', '.join(named + more)})"
    )


def _line_about_labels(images: _Images, copies: Sequence[Sequence[Copy]], classes: Sequence[str]) -> tuple[str, ...]:
    """Return a line about copies with different labels, in one split or in several; none without such copies."""
    groups = ([copy.place for copy in group] for group in copies)
    different = [places for places in groups if len({images.labels[place] for place in places}) > 1]
    if not different:
        return ()
    named = []
    for places in different[:_MOST_PAIRS]:
        a = places[0]
        b = next(place for place in places if images.labels[place] != images.labels[a])
        texts = (f"{escaped(images.names[place])} '{classes[images.labels[place]]}'" for place in (a, b))
        named.append(" = ".join(texts))
    more = ["..."] if len(different) > _MOST_PAIRS else []
    count = sum(map(len, different))
    return (f"data: {count} images have copies with another label ({', '.join(named + more)})",)


def _without(splits: Mapping[str, Listing], name: str, images: _Images, copies: Sequence[Sequence[Copy]]) -> Listing:
    """Return a split without images that are also in the test split or, for training, in the validation split."""
    keep_from = {"train": {"val", "test"}, "val": {"test"}}[name]
    out = {
        copy.place
        for group in copies
        if any(images.splits[copy.place] in keep_from for copy in group)
        for copy in group
        if images.splits[copy.place] == name
    }
    start = images.splits.index(name) if splits[name].files else 0
    kept = [place for place in range(len(splits[name].files)) if start + place not in out]
    return splits[name].part(torch.tensor(kept, dtype=torch.int64))
