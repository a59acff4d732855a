"""Knobs of a folder that say which of its images are used, and for what."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.registry import shared_knobs
from runner.relations import Fields, Leaves
from runner.roles import Aspect
from runner.schema import HalfOpenUnit, NonNegativeInt, PositiveInt, Range

_SplitFolder = Annotated[dict[str, str], Fields((("train", str), ("val", str), ("test", str)), needed=("train",))]
Splits = Literal["auto", "exact"] | _SplitFolder | None
ClassOrder = Literal["natural", "text"]
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
    ) -> None:
        self.splits, self.val_fraction, self.test_fraction = splits, val_fraction, test_fraction
        self.classes, self.class_order = classes, class_order
        self.limit, self.limit_seed = limit, limit_seed
