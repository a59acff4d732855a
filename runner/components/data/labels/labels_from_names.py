"""Images with labels from their file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from runner.components.data.labels.labeled_images import Labeled, labeled_source
from runner.components.data.layout.folder_listing import Skipped, images_under
from runner.components.data.layout.image_groups import found_in_name, groups_by_name
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.layout.listing import Source
from runner.components.data.layout.split_folders import find_splits
from runner.engine.saving.storage import printable
from runner.errors import DataError, escaped


def read_names(root: Path, settings: LayoutSettings) -> Source:
    """Return the images in whose names `data.label_regex` finds a label, in any folders; others are counted.

    The expression's group `label` is the label, else its first group, else all that it finds.

    Raises DataError if it finds a label in no training or validation image.
    """
    assert settings.label_regex is not None
    return _Reader(root, settings, settings.label_regex).read()


class _Reader:
    """Reads the names in one folder."""

    def __init__(self, root: Path, settings: LayoutSettings, expression: str) -> None:
        self.root, self.settings, self.expression = root, settings, expression
        self.pattern = re.compile(expression)
        self.skipped = Skipped()
        self.unlabeled: list[str] = []

    def read(self) -> Source:
        """Return the images and their labels."""
        folders = find_splits(self.root, self.settings.splits, self.skipped)
        places = {"all" if folders.flat else "train": folders.train, "val": folders.val, "test": folders.test}
        images: dict[str, list[Labeled]] = {}
        no_test = None
        for split, folder in places.items():
            if folder is None:
                continue
            inner = [f"{other}/" for other in places.values() if other and folder in other.parents]
            files = [file for file in images_under(folder, self.skipped) if not file.startswith(tuple(inner))]
            images[split] = self._label(files)
            if not images[split] and split == "test":
                del images[split]
                no_test = f"{printable(folder)} has no labels: data.label_regex finds none in {_count(files)}"
            elif not images[split]:
                raise DataError(
                    f"data.label_regex: got '{escaped(self.expression)}', finds no label in {_count(files)} in "
                    f"{printable(folder)}"
                )
        groups = self.settings.groups
        group_of = None if groups is None else groups_by_name(groups, self.root)
        where = f"data.label_regex: {printable(folders.train)}"
        return labeled_source(
            self.root, self.settings, images, where, group_of, (*self._notes(), *self.skipped.notes()), no_test
        )

    def _label(self, files: Sequence[str]) -> list[Labeled]:
        """Return the images that have a label."""
        found, unlabeled = [], []
        for file in files:
            label = found_in_name(self.pattern, file.rpartition("/")[2], "label")
            if label is None:
                unlabeled.append(file)
            else:
                found.append(Labeled(file, label))
        if found:
            self.unlabeled += unlabeled
        return found

    def _notes(self) -> tuple[str, ...]:
        """Return a line about images without a label."""
        if not self.unlabeled:
            return ()
        count, first = len(self.unlabeled), escaped(self.unlabeled[0])
        return (f"data: left out images without a label in their names: {count} (the first is {first})",)


def _count(files: Sequence[str]) -> str:
    """Return the number of some images, and the name of the first."""
    first = f" (the first is {escaped(files[0].rpartition('/')[2])})" if files else ""
    return f"{len(files)} images{first}"
