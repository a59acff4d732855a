"""The image files of a folder, their classes and splits; nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.components.data.splitting import split_order, stratified_split
from runner.engine.saving.storage import printable
from runner.errors import DataError

_EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "webp", "gif", "ppm", "tif", "tiff")
_VAL_FOLDERS = ("val", "valid", "validation")


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
    """The three splits of a folder (test may be missing) and the classes, sorted by name."""

    train: Listing
    val: Listing
    test: Listing | None
    classes: tuple[str, ...]


def read_layout(root: Path, *, val_fraction: float, test_fraction: float) -> Layout:
    """Return the splits under `root`; a missing split is a fixed part of an existing one.

    Either `root/train/<class>/*`, with `root/val` (or `valid`, `validation`) and `root/test` if they exist, or
    `root/<class>/*`.

    Raises:
        DataError: The folder cannot be listed, or not be trained on.
    """
    try:
        if root.is_dir():
            return _read_splits(root, val_fraction, test_fraction)
    except OSError as error:
        raise DataError(f"data.root: {printable(Path(error.filename or root))}: {error.strerror}") from error
    raise DataError(f"data.root: {printable(root)} is not a folder")


def _read_splits(root: Path, val_fraction: float, test_fraction: float) -> Layout:
    """Return the splits under a folder."""
    if not (root / "train").is_dir():
        classes = _class_names(root)
        return _split_by_hash(_list_images(root, classes), classes, root, val_fraction, test_fraction)
    classes = _class_names(root / "train")
    train = _list_images(root / "train", classes)
    test = _list_images(root / "test", classes) if (root / "test").is_dir() else None
    folders = [root / word for word in _VAL_FOLDERS if (root / word).is_dir()]
    if len(folders) > 1:
        raise DataError(f"data.root: {folders[0]} and {folders[1]} both look like the validation split; keep one")
    if folders:
        return Layout(train, _list_images(folders[0], classes), test, classes)
    rank = split_order(relative_paths(root / "train", train.files))
    val, remaining = stratified_split(train.labels, rank, _split_size(val_fraction, train, root, "val"))
    return Layout(train.part(remaining), train.part(val), test, classes)


def _split_by_hash(
    everything: Listing, classes: tuple[str, ...], root: Path, val_fraction: float, test_fraction: float
) -> Layout:
    """Return fixed, stratified splits of a folder without split folders."""
    rank = split_order(relative_paths(root, everything.files))
    test_count = _split_size(test_fraction, everything, root, "test") if test_fraction else 0
    test, remaining = stratified_split(everything.labels, rank, test_count)
    val, train = stratified_split(
        everything.labels[remaining], rank[remaining], _split_size(val_fraction, everything, root, "val")
    )
    return Layout(
        train=everything.part(remaining[train]),
        val=everything.part(remaining[val]),
        test=everything.part(test) if test_fraction else None,
        classes=classes,
    )


def _split_size(fraction: float, listing: Listing, root: Path, split: str) -> int:
    """Return the number of examples of a fraction. Raises DataError for zero."""
    count = round(fraction * len(listing.files))
    if count == 0:
        raise DataError(
            f"data.{split}_fraction: got {fraction:g}; "
            f"must select at least one of the {len(listing.files)} images in {root}"
        )
    return count


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders. Raises DataError for fewer than two."""
    names = _subfolders(folder)
    if len(names) < 2:
        problem = f"only one class, '{names[0]}'" if names else f"no class folders (want {folder}/<class>/<image>)"
        raise DataError(f"data.root: {folder} has {problem}")
    return tuple(names)


def _subfolders(folder: Path) -> list[str]:
    """Return the sorted names of subfolders, without hidden ones and macOS's `__MACOSX`."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX")


def _list_images(folder: Path, classes: Sequence[str]) -> Listing:
    """Return a split's images, sorted by class and path. Raises DataError for empty or unknown class folders."""
    files: list[str] = []
    labels: list[int] = []
    for name in _subfolders(folder):
        if name not in classes:
            raise DataError(f"data.root: {folder / name}: class '{name}' is not in the training split")
        paths = _images_under(folder / name)
        if not paths:
            raise DataError(f"data.root: {folder / name}: class '{name}' has no images ({', '.join(_EXTENSIONS)})")
        files += paths
        labels += [classes.index(name)] * len(paths)
    if not files:
        raise DataError(f"data.root: {folder} has no class folders (want {folder}/<class>/<image>)")
    return Listing(files, torch.tensor(labels))


def relative_paths(root: Path, files: Sequence[str]) -> list[str]:
    """Return paths relative to a folder that contains all of them (os.path.relpath is ten times slower)."""
    start = 0 if root == Path() else len(os.path.join(root, ""))  # noqa: PTH118
    return [file[start:] for file in files]


def _images_under(folder: Path) -> list[str]:
    """Return the sorted paths of all images under a folder, without following links to folders (no loops)."""

    def refuse(error: OSError) -> None:
        # os.walk skips folders that cannot be listed
        raise error

    return sorted(
        # A Path per file takes ten times as long
        os.path.join(place, file)  # noqa: PTH118
        for place, _, files in os.walk(folder, onerror=refuse)
        for file in files
        if file.rpartition(".")[2].lower() in _EXTENSIONS and not file.startswith(".")
    )
