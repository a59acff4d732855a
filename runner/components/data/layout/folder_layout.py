"""The image files of a folder with their labels and splits; only the check for copies decodes some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from runner.components.data.labels.class_names import chosen_classes
from runner.components.data.labels.labels_from_csv import read_labels
from runner.components.data.labels.labels_from_names import read_names
from runner.components.data.layout.finish_layout import finish_layout
from runner.components.data.layout.folder_listing import (
    Skipped,
    folders_in,
    has_images,
    images_under,
    kind_of,
    list_folder,
)
from runner.components.data.layout.image_groups import groups_by_name
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.layout.listing import Layout, Listing, Source
from runner.components.data.layout.split_folders import SplitFolders, find_splits, splits_by_name
from runner.components.data.pixels.image_kinds import is_image
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, escaped
from runner.user_paths import is_dir


def read_layout(root: Path, settings: LayoutSettings) -> Layout:
    """Return the splits under `root`; a missing split is a fixed part of an existing one.

    Either a folder per split (`split_folders`) with a folder per class in each, or `root/<class>/*`; or images with
    labels from a CSV file or from their names, in any folders.

    Raises:
        DataError: The folder cannot be listed, is ambiguous, or cannot be trained on.
    """
    try:
        if is_dir(root, error=DataError, key="data.root"):
            return finish_layout(_read_source(root, settings), root, settings)
    except OSError as error:
        raise DataError(f"data.root: {printable(Path(error.filename or root))}: {error.strerror}") from error
    raise DataError(f"data.root: {printable(root)} is not a folder")


def _read_source(root: Path, settings: LayoutSettings) -> Source:
    """Return the images that have labels: in a CSV file, in their names, or by their folders."""
    if settings.labels is not None and settings.label_regex is not None:
        raise ConfigError("data.label_regex: given together with data.labels; must be one of the two")
    if settings.labels is not None:
        return read_labels(root, settings)
    if settings.columns is not None:
        raise ConfigError("data.columns: names columns of a CSV file; requires data.labels=<file>")
    if settings.label_regex is not None:
        return read_names(root, settings)
    return _Reader(root, settings).read()


class _Reader:
    """Reads one folder. Labels count the class folders in the order of their text until the classes are chosen."""

    def __init__(self, root: Path, settings: LayoutSettings) -> None:
        self.root, self.settings = root, settings
        self.skipped = Skipped()
        self.folders: SplitFolders = find_splits(root, settings.splits, self.skipped)
        if root != self.folders.train:
            # Count what is left out beside the split folders
            self._class_folders(root)
        # Class folders, sorted, and those that are used, in the order of the labels
        self.names = self._class_folders(self.folders.train)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.chosen = chosen_classes(self.names, settings.classes, settings.class_order, self.folders.train)
        self.used = frozenset(self.chosen)

    def read(self) -> Source:
        """Return the images and their labels."""
        folders, groups = self.folders, self.settings.groups
        train = self._list_images(folders.train)
        test, no_test = None, None
        if folders.test:
            test, no_test = self._list_test(folders.test)
        elif not folders.flat:
            no_test = f"{printable(self.root)} has no folder of test images"
        return Source(
            names=self.names,
            chosen=self.chosen,
            base=folders.train,
            train=train,
            val=self._list_images(folders.val) if folders.val else None,
            test=test,
            no_test=no_test,
            test_place=folders.test is not None,
            group_of=None if groups is None else groups_by_name(groups, self.root),
            notes=self._notes(),
        )

    def _class_folders(self, folder: Path) -> list[str]:
        """Return the sorted names of the class folders in the folder of a split."""
        names, files = list_folder(folder, self.skipped)
        for file in files:
            if is_image(str(folder / file)):
                self.skipped.loose.append(str(folder / file))
            else:
                self.skipped.others[kind_of(file)] += 1
        other_splits = self.folders.below(folder)
        return [name for name in names if name not in other_splits]

    def _list_images(self, folder: Path, *, names: Sequence[str] | None = None) -> Listing:
        """Return a split's images, sorted by class and path. Raises DataError for empty or unknown class folders."""
        files: list[str] = []
        labels: list[int] = []
        if names is None:
            names = self.names if folder == self.folders.train else self._class_folders(folder)
        for name in names:
            if self.settings.classes is not None and name not in self.used:
                # Its images count in the splits of a folder, so that a choice of classes moves none to another split
                paths = images_under(folder / name, Skipped()) if name in self.numbers else []
            else:
                paths = self._images_of_class(folder, name)
            files += paths
            labels += [self.numbers.get(name, 0)] * len(paths)
        if not files:
            raise DataError(
                f"data.root: {printable(folder)} has no class folders (want {printable(folder)}/<class>/<image>)"
            )
        return Listing(files, torch.tensor(labels))

    def _images_of_class(self, folder: Path, name: str) -> list[str]:
        """Return the images of a class in the folder of a split."""
        place, name_shown = printable(folder / name), escaped(name)
        if name not in self.numbers:
            raise DataError(f"data.root: {place}: class '{name_shown}' is not in the training split")
        before = Counter(self.skipped.others)
        paths = images_under(folder / name, self.skipped)
        if not paths:
            others = ", ".join(f"{kind} {count}" for kind, count in (self.skipped.others - before).items())
            raise DataError(
                f"data.root: {place}: class '{name_shown}' has no images{f' (only {others})' if others else ''}"
            )
        return paths

    def _list_test(self, folder: Path) -> tuple[Listing | None, str | None]:
        """Return the images of the test folder; None and the reason if they have no labels."""
        before = len(self.skipped.loose)
        names = self._class_folders(folder)
        labelled = [name for name in names if name in self.numbers]
        if labelled or len(names) > 1:
            return self._list_images(folder, names=names), None
        del self.skipped.loose[before:]
        content = "its images are not in class folders" if has_images(folder) else "it has no images"
        return None, f"{printable(folder)} has no labels: {content}"

    def _notes(self) -> tuple[str, ...]:
        """Return lines about what was left out."""
        notes = []
        # Classes with a folder per split in each would be split again, without a word
        inner = splits_by_name(folders_in(self.folders.train / self.chosen[0]))
        if "train" in inner.values():
            places = ", ".join(escaped(f"{self.chosen[0]}/{name}") for name in inner)
            notes.append(f"data: folders in class folders are no splits, their images count together ({places}, ...)")
        return (*notes, *self.skipped.notes())
