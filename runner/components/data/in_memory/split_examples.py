"""The three splits of examples in memory: those that are given, and fixed, stratified parts for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from runner.batch_sizes import BatchSize
from runner.components.data.copies import Duplicates
from runner.components.data.in_memory.array_names import ALL
from runner.components.data.in_memory.find_rows import Checked, check_rows
from runner.components.data.splitting import split_order, stratified_split
from runner.engine.contracts import Data, Images, InMemory, Sampling
from runner.engine.data_summary import Found, count_labels
from runner.errors import DataError
from runner.registry import shared_knobs
from runner.relations import Leaves
from runner.roles import Aspect, Role
from runner.schema import HalfOpenUnit, PositiveInt, Range


class _Part(NamedTuple):
    """A split: examples at some positions (M,) of a given split."""

    source: str
    places: Tensor


@shared_knobs
class InMemorySettings:
    """The knobs of data sets whose examples are read from one file into memory."""

    def __init__(
        self,
        *,
        batch_size: Annotated[BatchSize, Aspect.TRAINING],
        sampling: Annotated[Sampling, Aspect.TRAINING],
        val_fraction: Annotated[float, Range(0, 1, open_low=True, open_high=True), Leaves("test_fraction")],
        test_fraction: HalfOpenUnit,
        duplicates: Duplicates,
        memory: Annotated[PositiveInt, Role.EXECUTION],
        placement: Annotated[InMemory, Role.EXECUTION],
    ) -> None:
        self.memory = memory
        self._batch_size, self._sampling, self._placement = batch_size, sampling, placement
        self._val_fraction, self._test_fraction = val_fraction, test_fraction
        self._duplicates = duplicates

    def build(
        self,
        given: Mapping[str, Images],
        classes: tuple[str, ...],
        notes: tuple[str, ...],
        name: Callable[[str, int], str],
    ) -> Data:
        """Return the data set of the given splits; missing ones are parts of them.

        `name` gives the words for an example of a given split in messages.
        """
        parts = _split_places(given, self._val_fraction, self._test_fraction)
        splits = {split: _take(given[part.source], part.places) for split, part in parts.items()}
        checked = check_rows(
            splits,
            classes,
            self._duplicates,
            lambda split, place: name(parts[split].source, int(parts[split].places[place])),
        )
        train, test = checked.splits["train"], checked.splits.get("test")
        _, channels, height, width = train.pixels.shape
        return Data(
            train=train,
            val=checked.splits["val"],
            test=None if test is None else lambda: test,
            shape=(channels, height, width),
            classes=classes,
            batch_size=self._batch_size,
            sampling=self._sampling,
            placement=self._placement,
            notes=(*notes, *checked.notes),
            found=_found(checked, given, len(classes)),
        )


def _found(checked: Checked, given: Mapping[str, Images], classes: int) -> Found:
    """Return the number of examples per class and split, with remarks about where a split comes from."""
    counts = {name: count_labels(part.labels, classes) for name, part in checked.splits.items()}
    pools = [count_labels(part.labels, classes) for name, part in given.items() if name != "test"]
    remarks = {} if ALL in given or "val" in given else {"val": "split from train"}
    for name, left in checked.left_out.items():
        copies = f"{left} {'copy' if left == 1 else 'copies'} left out"
        remarks[name] = f"{remarks[name]}, {copies}" if name in remarks else copies
    return Found([sum(each) for each in zip(*pools, strict=True)], counts, remarks)


def _take(examples: Images, places: Tensor) -> Images:
    """Return the examples at some positions, without a copy if these are all."""
    return examples if len(places) == len(examples.labels) else examples.part(places)


def _split_places(given: Mapping[str, Images], val_fraction: float, test_fraction: float) -> dict[str, _Part]:
    """Return the training, validation and test split.

    Examples under `all` are split into three. Beside a training split a missing validation split is a part of it, and a
    missing test split stays missing. A part is chosen by the positions of the examples, whatever the seed.

    Raises:
        DataError: A fraction selects no example.
    """
    splits = {name: _Part(name, torch.arange(len(part.labels))) for name, part in given.items()}
    rest = splits.pop(ALL, None) or splits.pop("train")
    labels = given[rest.source].labels
    if ALL in given and test_fraction:
        count = round(test_fraction * len(labels))
        splits["test"], rest = _set_aside(rest, labels, count, f"data.test_fraction: got {test_fraction:g}")
    if "val" not in splits:
        count = round(val_fraction * len(labels))
        splits["val"], rest = _set_aside(rest, labels, count, f"data.val_fraction: got {val_fraction:g}")
    return {"train": rest, **{name: splits[name] for name in ("val", "test") if name in splits}}


def _set_aside(part: _Part, all_labels: Tensor, count: int, what: str) -> tuple[_Part, _Part]:
    """Return `count` examples of a part, stratified by class, and the others."""
    labels = all_labels[part.places]
    aside, remaining = stratified_split(labels, split_order(range(len(labels))), count)
    if not len(aside):
        classes = int((labels.bincount() > 0).sum())
        raise DataError(
            f"{what}, which selects none of {len(labels)} examples of {classes} classes; must select at "
            "least one, and leave one of each class to train on"
        )
    return _Part(part.source, part.places[aside]), _Part(part.source, part.places[remaining])
