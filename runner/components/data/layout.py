"""Which image files a folder holds, of which classes and in which splits; nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.components.data.splitting import ranks, set_aside
from runner.engine.saving.storage import shown
from runner.errors import DataError

EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "webp", "gif", "ppm", "tif", "tiff")
VALIDATION = ("val", "valid", "validation")


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
    """Return the splits under `root`; what it has no folder for is a fixed part of what it has.

    Either `root/train/<class>/*`, with `root/val` (or `valid`, `validation`) and `root/test` if they exist, or
    `root/<class>/*`. Raises DataError for a folder that cannot be trained on, or not be listed.
    """
    try:
        if root.is_dir():
            return splits(root, val_fraction, test_fraction)
    except OSError as error:
        raise DataError(f"data.root: {shown(Path(error.filename or root))}: {error.strerror}") from error
    raise DataError(f"data.root: {shown(root)} is not a folder")


def splits(root: Path, val_fraction: float, test_fraction: float) -> Layout:
    """Return the splits under a folder."""
    if not (root / "train").is_dir():
        classes = class_names(root)
        return three_parts(list_images(root, classes), classes, root, val_fraction, test_fraction)
    classes = class_names(root / "train")
    train = list_images(root / "train", classes)
    test = list_images(root / "test", classes) if (root / "test").is_dir() else None
    given = [root / word for word in VALIDATION if (root / word).is_dir()]
    if len(given) > 1:
        raise DataError(f"data.root: {given[0]} and {given[1]} both look like the validation split; keep one")
    if given:
        return Layout(train, list_images(given[0], classes), test, classes)
    rank = ranks(below(root / "train", train.files))
    val, rest = set_aside(train.labels, rank, counted(val_fraction, train, root, "val"))
    return Layout(train.part(rest), train.part(val), test, classes)


def three_parts(
    everything: Listing, classes: tuple[str, ...], root: Path, val_fraction: float, test_fraction: float
) -> Layout:
    """Return the fixed, stratified splits of a folder that has none."""
    rank = ranks(below(root, everything.files))
    test_count = counted(test_fraction, everything, root, "test") if test_fraction else 0
    test, rest = set_aside(everything.labels, rank, test_count)
    val, train = set_aside(everything.labels[rest], rank[rest], counted(val_fraction, everything, root, "val"))
    return Layout(
        train=everything.part(rest[train]),
        val=everything.part(rest[val]),
        test=everything.part(test) if test_fraction else None,
        classes=classes,
    )


def counted(fraction: float, listing: Listing, root: Path, split: str) -> int:
    """Return how many examples a fraction is; none at all is an error."""
    count = round(fraction * len(listing.files))
    if count == 0:
        raise DataError(f"data.{split}_fraction: {fraction:g} of the {len(listing.files)} images in {root} is none")
    return count


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders, sorted; there must be at least two."""
    names = subfolders(folder)
    if len(names) < 2:
        found = f"only one class, '{names[0]}'" if names else f"no class folders (want {folder}/<class>/<image>)"
        raise DataError(f"data.root: {folder} has {found}")
    return tuple(names)


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, but for hidden ones and what macOS leaves in archives."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX")


def list_images(folder: Path, classes: Sequence[str]) -> Listing:
    """Return the images of a split, sorted by class and path; every class folder must hold some and be known."""
    files: list[str] = []
    labels: list[int] = []
    for name in subfolders(folder):
        if name not in classes:
            raise DataError(f"data.root: {folder / name}: class '{name}' is not in the training split")
        found = images_under(folder / name)
        if not found:
            raise DataError(f"data.root: {folder / name}: class '{name}' has no images ({', '.join(EXTENSIONS)})")
        files += found
        labels += [classes.index(name)] * len(found)
    if not files:
        raise DataError(f"data.root: {folder} has no class folders (want {folder}/<class>/<image>)")
    return Listing(files, torch.tensor(labels))


def below(root: Path, files: Sequence[str]) -> list[str]:
    """Return the paths of files from a folder on that all of them lie in (os.path.relpath takes ten times as long)."""
    start = 0 if root == Path() else len(os.path.join(root, ""))  # noqa: PTH118
    return [file[start:] for file in files]


def images_under(folder: Path) -> list[str]:
    """Return the paths of all images under a folder, sorted; links to folders are not followed, so none is a loop."""

    def refuse(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that cannot be listed

    return sorted(
        os.path.join(place, file)  # noqa: PTH118  (a Path per file takes ten times as long)
        for place, _, files in os.walk(folder, onerror=refuse)
        for file in files
        if file.rpartition(".")[2].lower() in EXTENSIONS and not file.startswith(".")
    )
