"""Knobs of a folder that say which of its images are used, and for what."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.components.data.copies import Duplicates
from runner.registry import shared_knobs
from runner.relations import Fields, Leaves, OfLength, Regular
from runner.roles import Aspect, Verbatim
from runner.schema import HalfOpenUnit, NonNegativeInt, PositiveInt, Range

_SplitFolder = Annotated[dict[str, str], Fields((("train", str), ("val", str), ("test", str)), needed=("train",))]
Splits = Literal["auto", "exact"] | _SplitFolder | None
ClassOrder = Literal["natural", "text"]
# Names of columns, or their numbers from 0
_Columns = Annotated[list[str | int], OfLength(1, "[file], [file, label] or [file, label, split]", most=3)]
_Expression = Annotated[str, Regular("a regular expression")]
_ValFraction = Annotated[float, Range(0, 1, open_low=True, open_high=True), Leaves("test_fraction")]


@shared_knobs
class LayoutSettings:
    """The choice of images in a folder; a data set asks for `layout`.

    Args:
        splits: Folders of the splits relative to the root, `auto` to find them by the words in their names, `exact` to
            find those called `train`, `val` (or `valid`, `validation`) and `test`, None if every folder is a class.
        val_fraction: Share of the training images that validates if there is no folder for it.
        test_fraction: Share that tests if there are no split folders.
        classes: Names of the class folders that are used, in the order of their labels; None for all.
        class_order: Order of all classes: numbers in names as numbers, or as text.
        limit: Number of training images, of each class its share and at least one; None for all.
        limit_seed: Seed of the choice that `limit` makes.
        labels: CSV file with the labels, relative to the root or to its split folders; None for folders as classes.
        columns: Its columns with the file, the label and the split; None to find them by their names.
        label_regex: Regular expression that finds the label in a file's name; None for folders as classes.
        groups: Regular expression that finds in a file's name the group (patient, track) which must stay in one split,
            or the column of the CSV that holds it; None for no groups.
        duplicates: Whether images with the same bytes or pixels in several splits are ignored, reported, left out of
            training and validation, or an error.
    """

    def __init__(
        self,
        *,
        splits: Splits,
        val_fraction: _ValFraction,
        test_fraction: HalfOpenUnit,
        classes: list[str | int] | None,
        class_order: ClassOrder,
        limit: Annotated[PositiveInt | None, Aspect.TRAINING],
        limit_seed: Annotated[NonNegativeInt, Aspect.TRAINING],
        labels: str | None,
        columns: _Columns | None,
        label_regex: Annotated[_Expression | None, Verbatim()],
        groups: Annotated[_Expression | None, Verbatim()],
        duplicates: Duplicates,
    ) -> None:
        self.splits, self.val_fraction, self.test_fraction = splits, val_fraction, test_fraction
        self.classes, self.class_order = classes, class_order
        self.limit, self.limit_seed = limit, limit_seed
        self.labels, self.columns, self.label_regex = labels, columns, label_regex
        self.groups, self.duplicates = groups, duplicates
