"""Knobs of data sets in shards: splits, classes, and the order of training."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.components.data.copies import Duplicates
from runner.components.data.layout.layout_settings import ClassOrder
from runner.registry import shared_knobs
from runner.relations import Fields, Leaves, OneOf, With
from runner.roles import Aspect
from runner.schema import HalfOpenUnit, NonNegativeInt, PositiveInt, Range

_SplitFiles = Annotated[dict[str, str], Fields((("train", str), ("val", str), ("test", str)), needed=("train",))]
ShardSplits = Literal["auto"] | _SplitFiles | None
_Order = Literal["global", "shards"]


@shared_knobs
class ShardSettings:
    """The choice of examples in shards; a data set asks for `shards`.

    Args:
        splits: Patterns of the files of each split below the root, `auto` to read the splits from words in the names of
            the files, None if all files are one pool.
        val_fraction: Share of the training examples that validates if there are no files for it.
        test_fraction: Share that tests if the files are not split.
        classes: Names of the classes that are used, in the order of their labels; None for all.
        class_order: Order of all classes: numbers in names as numbers, or as text.
        limit: Number of training examples, of each class its share and at least one; None for all.
        limit_seed: Seed of the choice that `limit` makes.
        order: Order of an epoch: any example may follow any other (`global`), or examples of a few shards at a time.
        window: Number of shards whose examples are mixed with `order=shards`.
    """

    # Copies are looked for in folders of images only
    duplicates: Duplicates = "ignore"

    def __init__(
        self,
        *,
        splits: ShardSplits,
        val_fraction: Annotated[float, Range(0, 1, open_low=True, open_high=True), Leaves("test_fraction")],
        test_fraction: HalfOpenUnit,
        classes: list[str | int] | None,
        class_order: ClassOrder,
        limit: Annotated[PositiveInt | None, Aspect.TRAINING],
        limit_seed: Annotated[NonNegativeInt, Aspect.TRAINING],
        order: Annotated[_Order, With("sampling", "balanced", OneOf(("global",))), Aspect.TRAINING],
        window: Annotated[PositiveInt, Aspect.TRAINING],
    ) -> None:
        self.splits, self.val_fraction, self.test_fraction = splits, val_fraction, test_fraction
        self.classes, self.class_order = classes, class_order
        self.limit, self.limit_seed = limit, limit_seed
        self.order, self.window = order, window
