"""The image files of a folder, their classes and splits; nothing is decoded here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.components.data.class_names import chosen_classes
from runner.components.data.folder_listing import (
    Skipped,
    folders_in,
    has_images,
    images_under,
    kind_of,
    list_folder,
    relative_paths,
)
from runner.components.data.image_kinds import is_image
from runner.components.data.layout_settings import LayoutSettings
from runner.components.data.split_folders import SplitFolders, find_splits, splits_by_name
from runner.components.data.splitting import split_order, stratified_sample, stratified_split
from runner.engine.data_summary import Found, count_labels
from runner.engine.randomness import keys
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, escaped


@dataclass(frozen=True)
class Listing:
    """The image files of one split and their labels (N,) int64."""

    files: list[str]
    labels: Tensor

    def part(self, index: Tensor) -> Listing:
        """Return the files at `index`."""
        return Listing([self.files[i] for i in index.tolist()], self.labels[index])


@dataclass(frozen=True)
class Layout:
    """The three splits of a folder and the names of the classes, as they are printed.

    `notes` name what was left out.
    """

    train: Listing
    val: Listing
    test: Listing | None
    classes: tuple[str, ...]
    found: Found
    notes: tuple[str, ...] = ()


def read_layout(root: Path, settings: LayoutSettings) -> Layout:
    """Return the splits under `root`; a missing split is a fixed part of an existing one.

    Either a folder per split (`split_folders`) with a folder per class in each, or `root/<class>/*`. Which files are
    in a split depends on their paths only; a choice of classes or a limit takes images away from it.

    Raises:
        DataError: The folder cannot be listed, is ambiguous, or cannot be trained on.
    """
    try:
        if root.is_dir():
            return _Reader(root, settings).read()
    except OSError as error:
        raise DataError(f"data.root: {printable(Path(error.filename or root))}: {error.strerror}") from error
    raise DataError(f"data.root: {printable(root)} is not a folder")


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

    def read(self) -> Layout:
        """Return the layout."""
        folders, settings = self.folders, self.settings
        pool = train = self._list_images(folders.train)
        test, no_test = None, None
        if folders.flat:
            test, train = self._split_off(pool, "test", settings.test_fraction, pool)
            no_test = "data.test_fraction is 0" if test is None else None
        elif folders.test:
            test, no_test = self._list_test(folders.test)
        else:
            no_test = f"{printable(self.root)} has no folder of test images"
        if folders.val:
            val: Listing | None = self._list_images(folders.val)
        else:
            val, train = self._split_off(train, "val", settings.val_fraction, pool)
        assert val is not None
        train, val, test = self._select(train), self._select(val), None if test is None else self._select(test)
        if test is not None and not test.files:
            test, no_test = None, f"{printable(self.root)} has no test images of these classes"
        limited = self._limit(train)
        apart = [self._select(pool), *([val] if folders.val else [])]
        found = self._found(apart, limited, len(train.files), val, test, no_test)
        return Layout(limited, val, test, self._class_names(), found, self._notes(no_test))

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

    def _split_off(
        self, listing: Listing, split: str, fraction: float, pool: Listing
    ) -> tuple[Listing | None, Listing]:
        """Return a fixed, stratified part of a listing, as large as a fraction of the pool, and what remains."""
        if split == "test" and fraction == 0:
            return None, listing
        count = round(fraction * len(pool.files))
        if count == 0:
            raise DataError(
                f"data.{split}_fraction: got {fraction:g}; "
                f"must select at least one of the {len(pool.files)} images in {printable(self.root)}"
            )
        rank = split_order(relative_paths(self.folders.train, listing.files))
        part, remaining = stratified_split(listing.labels, rank, count)
        return listing.part(part), listing.part(remaining)

    def _select(self, listing: Listing) -> Listing:
        """Return the images of the chosen classes, with the labels of the run."""
        label_of = torch.full((len(self.names),), -1)
        label_of[[self.numbers[name] for name in self.chosen]] = torch.arange(len(self.chosen))
        labels = label_of[listing.labels]
        return Listing(listing.files, labels).part((labels >= 0).nonzero().flatten())

    def _limit(self, train: Listing) -> Listing:
        """Return as many training images as `data.limit` says, of each class its share and at least one."""
        limit = self.settings.limit
        if limit is None or limit >= len(train.files):
            return train
        if limit < len(self.chosen):
            raise ConfigError(f"data.limit: got {limit}, must be >= {len(self.chosen)}, one image of each class")
        rank = keys(self.settings.limit_seed, "limit", each=relative_paths(self.folders.train, train.files))
        return train.part(stratified_sample(train.labels, rank, limit))

    def _class_names(self) -> tuple[str, ...]:
        """Return the names of the chosen classes as they are printed."""
        return tuple(map(escaped, self.chosen))

    def _found(
        self,
        pools: Sequence[Listing],
        train: Listing,
        before: int,
        val: Listing,
        test: Listing | None,
        no_test: str | None,
    ) -> Found:
        """Return what the folder holds; `before` is the number of training images without `data.limit`."""
        count = len(self.chosen)
        splits = {"train": train, "val": val, **({} if test is None else {"test": test})}
        made = [name for name, folder in (("val", self.folders.val), ("test", self.folders.test)) if not folder]
        remarks = {name: "split from train" for name in made if name in splits}
        if before > len(train.files):
            remarks["train"] = f"of {before}, data.limit"
        if no_test and self.folders.test:
            remarks["test"] = "no labels"
        return Found(
            total=[sum(each) for each in zip(*(count_labels(pool.labels, count) for pool in pools), strict=True)],
            counts={name: count_labels(listing.labels, count) for name, listing in splits.items()},
            remarks=remarks,
            among=len(self.names),
            no_test=no_test,
        )

    def _notes(self, no_test: str | None) -> tuple[str, ...]:
        """Return lines about what was left out."""
        notes = [f"data: {no_test}; it is ignored"] if no_test and self.folders.test else []
        # Classes with a folder per split in each would be split again, without a word
        inner = splits_by_name(folders_in(self.folders.train / self.chosen[0]))
        if "train" in inner.values():
            places = ", ".join(escaped(f"{self.chosen[0]}/{name}") for name in inner)
            notes.append(f"data: folders in class folders are no splits, their images count together ({places}, ...)")
        return (*notes, *self.skipped.notes())
