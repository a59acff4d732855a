"""From the images in shards to the splits of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runner.components.data.labels.class_names import chosen_classes
from runner.components.data.labels.one_class_each import check_one_class_each
from runner.components.data.layout.finish_layout import finish_layout
from runner.components.data.layout.listing import Layout, Listing, Source
from runner.components.data.pixels.packed_images import PackedFiles
from runner.components.data.shards.shard_files import ALL
from runner.components.data.shards.shard_settings import ShardSettings
from runner.engine.saving.storage import printable
from runner.errors import DataError, brief, escaped


@dataclass(frozen=True)
class Pool:
    """The images in the shards of one split, in the order of shards and places, and the label of each as text."""

    images: PackedFiles
    labels: Sequence[str]


def shard_layout(root: Path, pools: Mapping[str, Pool], settings: ShardSettings, notes: tuple[str, ...]) -> Layout:
    """Return the splits of a run: the given ones, and fixed, stratified parts by the names of the images for others.

    Raises:
        DataError: A split is empty or has a class that no training image has, or there are fewer than two classes.
    """
    where = f"data.root: {printable(root)}"
    names = _class_names(pools, where)
    numbers = {name: number for number, name in enumerate(names)}
    listings = {
        split: Listing(pool.images, torch.tensor([numbers[label] for label in pool.labels]))
        for split, pool in pools.items()
    }
    split = ALL not in pools
    source = Source(
        names=names,
        chosen=chosen_classes(names, settings.classes, settings.class_order, root),
        base=Path(),
        train=listings["train" if split else ALL],
        val=listings.get("val"),
        test=listings.get("test"),
        no_test=f"{printable(root)} has no files to test on" if split and "test" not in pools else None,
        test_place="test" in pools,
        group_of=None,
        notes=notes,
    )
    return finish_layout(source, root, settings)


def _class_names(pools: Mapping[str, Pool], where: str) -> list[str]:
    """Return the labels of the training images, sorted. Raises DataError for others in another split."""
    first = ALL if ALL in pools else "train"
    for split, pool in pools.items():
        if not len(pool.labels):
            raise DataError(f"{where}: the files of {'the data set' if split == ALL else split} have no image")
    counts = Counter(pools[first].labels)
    names = sorted(counts)
    if len(names) < 2:
        raise DataError(f"{where}: all {len(pools[first].labels)} training images have the label '{escaped(names[0])}'")
    check_one_class_each(counts, where)
    for split, pool in pools.items():
        if others := sorted(set(pool.labels) - set(names)):
            raise DataError(f"{where}: label '{escaped(brief(others[0]))}' of a {split} image is not in training")
    return names
