"""The image files of a data set with their labels: as they are found, and in the splits of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from runner.engine.data_summary import Found

# Paths of images -> the group of each
GroupOf = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Listing:
    """The image files of one split and their labels (N,) int64."""

    files: list[str]
    labels: Tensor

    def part(self, index: Tensor) -> Listing:
        """Return the files at `index`."""
        return Listing([self.files[i] for i in index.tolist()], self.labels[index])


@dataclass(frozen=True)
class Source:
    """The images that have labels, before splits are made and classes chosen.

    Attributes:
        names: All classes, in the order of the labels.
        chosen: The classes that are used, in the order of the labels of the run.
        base: The folder below which the paths decide about splits.
        train, val, test: The splits that are there; what is missing is a part of `train`.
        no_test: Why there is no test split, None if there is one or if a part of `train` tests.
        test_place: True if there is a place for test images, with labels or without.
        group_of: Gives the groups that must not be torn; None without groups.
        notes: Lines about what was left out.
    """

    names: Sequence[str]
    chosen: Sequence[str]
    base: Path
    train: Listing
    val: Listing | None
    test: Listing | None
    no_test: str | None
    test_place: bool
    group_of: GroupOf | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The three splits of a folder and the names of the classes, as they are printed.

    `notes` name what was left out, and what is wrong with the splits.
    """

    train: Listing
    val: Listing
    test: Listing | None
    classes: tuple[str, ...]
    found: Found
    notes: tuple[str, ...] = ()
