"""Splits of a run: parts set aside, groups kept together, classes chosen, copies left out, and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from runner.components.data.layout.duplicates import Checked, check_duplicates
from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.group_split import stratified_group_split
from runner.components.data.layout.image_groups import torn_groups
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.layout.listing import Layout, Listing, Source
from runner.components.data.splitting import split_order, stratified_sample, stratified_split
from runner.engine.data_summary import Found, count_labels
from runner.engine.randomness import keys
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, escaped


def finish_layout(source: Source, root: Path, settings: LayoutSettings) -> Layout:
    """Return the splits of a run. A missing split is a fixed part of the training images.

    Which files are in a split depends on their paths and groups only; a choice of classes, the removal of copies and a
    limit take images away from it.
    """
    return _Finisher(source, root, settings).finish()


class _Finisher:
    """Makes the splits of one data set."""

    def __init__(self, source: Source, root: Path, settings: LayoutSettings) -> None:
        self.source, self.root, self.settings = source, root, settings
        self.classes = tuple(map(escaped, source.chosen))

    def finish(self) -> Layout:
        """Return the layout."""
        source = self.source
        pool = train = source.train
        test, no_test, val = source.test, source.no_test, source.val
        if test is None and no_test is None:
            test, train = self._split_off(pool, "test", self.settings.test_fraction, pool)
            no_test = "data.test_fraction is 0" if test is None else None
        if val is None:
            val, train = self._split_off(train, "val", self.settings.val_fraction, pool)
        assert val is not None
        torn = torn_groups({"train": train, "val": val, **({"test": test} if test else {})}, source.group_of)
        train, val, test = self._select(train), self._select(val), None if test is None else self._select(test)
        if test is not None and not test.files:
            test, no_test = None, f"{printable(self.root)} has no test images of these classes"
        checked = self._without_copies(train, val, test)
        limited = self._limit(checked.train)
        apart = [self._select(pool), *([val] if source.val else [])]
        found = self._found(apart, limited, checked, no_test)
        ignored = (f"data: {no_test}; it is ignored",) if no_test and source.test_place else ()
        notes = (*ignored, *source.notes, *torn, *checked.notes)
        return Layout(limited, checked.val, checked.test, self.classes, found, notes)

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
        if self.source.group_of is None:
            rank = split_order(relative_paths(self.source.base, listing.files))
            part, remaining = stratified_split(listing.labels, rank, count)
        else:
            part, remaining = stratified_group_split(listing.labels, self.source.group_of(listing.files), count)
            if not len(part):
                raise DataError(
                    f"data.groups: no group can be set aside for data.{split}_fraction={fraction:g}: each holds all "
                    f"images of a class among those left in {printable(self.root)}"
                )
        return listing.part(part), listing.part(remaining)

    def _select(self, listing: Listing) -> Listing:
        """Return the images of the chosen classes, with the labels of the run."""
        number_of = {name: number for number, name in enumerate(self.source.names)}
        label_of = torch.full((len(number_of),), -1)
        label_of[[number_of[name] for name in self.source.chosen]] = torch.arange(len(self.source.chosen))
        labels = label_of[listing.labels]
        return Listing(listing.files, labels).part((labels >= 0).nonzero().flatten())

    def _without_copies(self, train: Listing, val: Listing, test: Listing | None) -> Checked:
        """Return the splits after the check for copies. Raises DataError if removing them leaves too little."""
        checked = check_duplicates(self.root, train, val, test, self.classes, self.settings.duplicates)
        left = "data.duplicates: got drop, which leaves no"
        if val.files and not checked.val.files:
            raise DataError(f"{left} validation image: all have copies among the test images")
        before, after = (each.labels.bincount(minlength=len(self.classes)) for each in (train, checked.train))
        if lost := ((before > 0) & (after == 0)).nonzero().flatten().tolist():
            raise DataError(
                f"{left} training image of class '{self.classes[lost[0]]}': all have copies in other splits"
            )
        return checked

    def _limit(self, train: Listing) -> Listing:
        """Return as many training images as `data.limit` says, of each class its share and at least one."""
        limit = self.settings.limit
        if limit is None or limit >= len(train.files):
            return train
        if limit < len(self.classes):
            raise ConfigError(f"data.limit: got {limit}, must be >= {len(self.classes)}, one image of each class")
        rank = keys(self.settings.limit_seed, "limit", each=relative_paths(self.source.base, train.files))
        return train.part(stratified_sample(train.labels, rank, limit))

    def _found(self, pools: Sequence[Listing], train: Listing, checked: Checked, no_test: str | None) -> Found:
        """Return what the folder holds."""
        count = len(self.classes)
        splits = {"train": train, "val": checked.val, **({} if checked.test is None else {"test": checked.test})}
        made = [
            *([] if self.source.val else ["val"]),
            *([] if self.source.test_place else ["test"]),
        ]
        remarks = {name: "split from train" for name in made if name in splits}
        for name, left in checked.left_out.items():
            copies = f"{left} {'copy' if left == 1 else 'copies'} left out"
            remarks[name] = f"{remarks[name]}, {copies}" if name in remarks else copies
        if len(checked.train.files) > len(train.files):
            limit = f"of {len(checked.train.files)}, data.limit"
            remarks["train"] = f"{limit}, {remarks['train']}" if "train" in remarks else limit
        if no_test and self.source.test_place:
            remarks["test"] = "no labels"
        return Found(
            total=[sum(each) for each in zip(*(count_labels(pool.labels, count) for pool in pools), strict=True)],
            counts={name: count_labels(listing.labels, count) for name, listing in splits.items()},
            remarks=remarks,
            among=len(self.source.names),
            no_test=no_test,
        )
