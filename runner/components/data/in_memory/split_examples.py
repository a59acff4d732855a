"""The three splits of examples in memory: those that are given, and fixed, stratified parts for the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from runner.components.data.in_memory.array_names import ALL
from runner.components.data.splitting import split_order, stratified_split
from runner.engine.contracts import Data, Images, InMemory, Sampling
from runner.engine.data_summary import Found, count_labels
from runner.errors import DataError
from runner.registry import shared_knobs
from runner.relations import Leaves
from runner.roles import Aspect, Role
from runner.schema import HalfOpenUnit, PositiveInt, Range


@shared_knobs
class InMemorySettings:
    """The knobs of data sets whose examples are read from one file into memory."""

    def __init__(
        self,
        *,
        batch_size: Annotated[PositiveInt, Aspect.TRAINING],
        sampling: Annotated[Sampling, Aspect.TRAINING],
        val_fraction: Annotated[float, Range(0, 1, open_low=True, open_high=True), Leaves("test_fraction")],
        test_fraction: HalfOpenUnit,
        memory: Annotated[PositiveInt, Role.EXECUTION],
        placement: Annotated[InMemory, Role.EXECUTION],
    ) -> None:
        self.memory = memory
        self._batch_size, self._sampling, self._placement = batch_size, sampling, placement
        self._val_fraction, self._test_fraction = val_fraction, test_fraction

    def build(self, given: Mapping[str, Images], classes: tuple[str, ...], notes: tuple[str, ...]) -> Data:
        """Return the data set of the given splits; missing ones are parts of them."""
        train, val, test = _split_examples(given, self._val_fraction, self._test_fraction)
        _, channels, height, width = train.pixels.shape
        return Data(
            train=train,
            val=val,
            test=None if test is None else lambda: test,
            shape=(channels, height, width),
            classes=classes,
            batch_size=self._batch_size,
            sampling=self._sampling,
            placement=self._placement,
            notes=notes,
            found=_found({"train": train, "val": val, "test": test}, given, len(classes)),
        )


def _found(splits: Mapping[str, Images | None], given: Mapping[str, Images], classes: int) -> Found:
    """Return the number of examples per class and split, with a remark about a validation split that was not given."""
    counts = {name: count_labels(part.labels, classes) for name, part in splits.items() if part is not None}
    together = [counts[name] for name in counts if name != "test" or "test" not in given]
    total = [sum(each) for each in zip(*together, strict=True)]
    return Found(total, counts, {} if ALL in given or "val" in given else {"val": "split from train"})


def _split_examples(
    given: Mapping[str, Images], val_fraction: float, test_fraction: float
) -> tuple[Images, Images, Images | None]:
    """Return the training, validation and test split.

    Examples under `all` are split into three. Beside a training split a missing validation split is a part of it, and a
    missing test split stays missing. A part is chosen by the positions of the examples, whatever the seed.

    Raises:
        DataError: A fraction selects no example.
    """
    everything = given[ALL] if ALL in given else given["train"]
    remaining, test = everything, given.get("test")
    count = len(everything.labels)
    if ALL in given and test_fraction:
        test, remaining = _set_aside(
            everything, round(test_fraction * count), f"data.test_fraction: got {test_fraction:g}"
        )
    val = given.get("val")
    if val is None:
        val, remaining = _set_aside(remaining, round(val_fraction * count), f"data.val_fraction: got {val_fraction:g}")
    return remaining, val, test


def _set_aside(examples: Images, count: int, what: str) -> tuple[Images, Images]:
    """Return `count` examples, stratified by class, and the others."""
    aside, remaining = stratified_split(examples.labels, split_order(range(len(examples.labels))), count)
    if not len(aside):
        classes = int((examples.labels.bincount() > 0).sum())
        raise DataError(
            f"{what}, which selects none of {len(examples.labels)} examples of {classes} classes; must select at "
            "least one, and leave one of each class to train on"
        )
    return examples.part(aside), examples.part(remaining)
