"""From images with the words of their labels to the source of a data set: classes in order, splits, and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runner.components.data.labels.class_names import chosen_classes
from runner.components.data.labels.one_class_each import check_one_class_each
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.layout.listing import GroupOf, Listing, Source
from runner.engine.saving.storage import printable
from runner.errors import DataError, escaped


@dataclass(frozen=True)
class Labeled:
    """An image file and its label."""

    file: str
    label: str


def labeled_source(
    root: Path,
    settings: LayoutSettings,
    images: Mapping[str, Sequence[Labeled]],
    where: str,
    group_of: GroupOf | None,
    notes: tuple[str, ...],
    no_test: str | None = None,
) -> Source:
    """Return the source of images by split: `train`, `val`, `test`, or `all` if the run makes the splits.

    `where` says where the labels stand, `no_test` why the images of a test folder have none.

    Raises DataError without training images, for fewer than two classes, and for classes that no training image has.
    """
    names = _class_names(images, where)
    numbers = {name: number for number, name in enumerate(names)}
    listings = {split: _listing(some, numbers) for split, some in images.items() if some}
    missing = None if "all" in images or "test" in images else f"{printable(root)} has no labeled test images"
    return Source(
        names=names,
        chosen=chosen_classes(names, settings.classes, settings.class_order, root),
        base=root,
        train=listings["train" if "train" in listings else "all"],
        val=listings.get("val"),
        test=listings.get("test"),
        no_test=no_test or missing,
        test_place="test" in images or no_test is not None,
        group_of=group_of,
        notes=notes,
    )


def _class_names(images: Mapping[str, Sequence[Labeled]], where: str) -> list[str]:
    """Return the labels of the training images, sorted."""
    pool = images.get("train") or images.get("all")
    if not pool:
        raise DataError(f"{where}: no image is of the training split")
    counts = Counter(image.label for image in pool)
    names = sorted(counts)
    if len(names) < 2:
        raise DataError(f"{where}: all {len(pool)} training images have the label '{escaped(names[0])}'")
    check_one_class_each(counts, where)
    for split, some in images.items():
        if others := sorted({image.label for image in some} - set(names)):
            raise DataError(f"{where}: label '{escaped(others[0])}' of a {split} image is not in the training split")
    return names


def _listing(images: Sequence[Labeled], numbers: Mapping[str, int]) -> Listing:
    """Return images sorted by class and path."""
    ordered = sorted((numbers[image.label], image.file) for image in images)
    return Listing([file for _, file in ordered], torch.tensor([label for label, _ in ordered]))
