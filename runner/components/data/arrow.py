"""Images in Parquet, Feather and Arrow files."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np

from runner.components.data.image_settings import ImageSettings
from runner.components.data.layout.listing import Layout
from runner.components.data.pixels.pixel_settings import PixelSettings
from runner.components.data.shards.arrow_files import SUFFIXES, load_pyarrow
from runner.components.data.shards.arrow_images import ArrowImages
from runner.components.data.shards.arrow_table import choose_columns, describe_cost, group_numbers, read_labels
from runner.components.data.shards.shard_files import ShardFiles, check_local, find_shards
from runner.components.data.shards.shard_identity import shard_parts
from runner.components.data.shards.shard_layout import Pool, shard_layout
from runner.components.data.shards.shard_settings import ShardSettings
from runner.engine.contracts import Data
from runner.engine.fingerprint import Part, identified_by
from runner.registry import register
from runner.roles import Aspect, FilePath, Role, Verbatim
from runner.user_folders import expand_home

_Column = Annotated[str | None, Verbatim()]
# MiB of a group of rows from which on a line says that an order is slow
_MUCH = 4


def _identity(shards: ShardSettings, *, root: str, image: str | None, label: str | None) -> dict[str, Part]:
    """Return what identifies images in columns: files, rows, labels, and the bytes of the files of each split."""
    files, layout, _ = _read(shards, root, image, label)
    listings = {"train": layout.train, "val": layout.val, **({"test": layout.test} if layout.test else {})}
    numbers = {split: _images(listing.files).file_numbers().tolist() for split, listing in listings.items()}
    return shard_parts(layout, files.base, [files.name(path) for path in files.all()], numbers)


@register("data")
@identified_by(_identity)
def arrow(
    shards: ShardSettings,
    pixels: PixelSettings,
    images: ImageSettings,
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
    image: _Column,
    label: _Column,
) -> Data:
    """Load images from local Parquet, Feather or Arrow files, as Hugging Face's `datasets` writes them (needs pyarrow).

    A column has encoded images as bytes, or as a struct of bytes and path; another has the labels as text or numbers,
    with the names of classes that `datasets` keeps. Columns of labels are read at the start, groups of rows with images
    when they are needed. Splits come from words in the names of the files or from `splits`; missing ones are fixed,
    stratified parts by file and row, whatever the seed. Broken images are found when they are read.

    Returns:
        Images (N, 3, H, W) uint8, or (N, 1, H, W) if gray.

    Raises:
        DataError, ConfigError: A file or column is missing, damaged or of the wrong type; pyarrow is missing.
    """
    _, layout, cost = _read(shards, root, image, label)
    window = shards.window if shards.order == "shards" else None
    made = images.build(layout, expand_home(root), pixels, window)
    if cost < _MUCH or window is not None or made.placement != "disk":
        return made
    line = f"data: order=global reads {cost:.0f} MiB of a Parquet file for an image; data.order=shards is faster"
    return replace(made, notes=(*made.notes, line))


def _read(shards: ShardSettings, root: str, image: str | None, label: str | None) -> tuple[ShardFiles, Layout, float]:
    """Return the files, the splits of the images in them, and the MiB that are read for one image."""
    check_local(root)
    load_pyarrow()
    files = find_shards(root, SUFFIXES, shards.splits)
    paths = files.all()
    image, label = choose_columns(paths[0], image, label)
    tables = [read_labels(path, image, label) for path in paths]
    where, groups, rows = group_numbers(tables)
    count = sum(len(table.labels) for table in tables)
    size = int(sum(table.group_bytes * len(table.rows) for table in tables)) // max(1, count)
    # One more than a window: its last images and the first of the next are asked for together
    keep = shards.window + 1 if shards.order == "shards" else 2
    every = ArrowImages([str(path) for path in paths], image, where, groups, rows, size, keep)
    starts = np.cumsum([0, *(len(table.labels) for table in tables)])
    pools = {}
    for split, own in files.splits.items():
        numbers = [paths.index(path) for path in own]
        places = np.concatenate([np.arange(starts[number], starts[number + 1]) for number in numbers])
        pools[split] = Pool(every.at(places), [word for number in numbers for word in tables[number].labels])
    return files, shard_layout(expand_home(root), pools, shards, ()), describe_cost(tables)


def _images(files: object) -> ArrowImages:
    """Return the images of a split, which are in columns."""
    assert isinstance(files, ArrowImages)
    return files
