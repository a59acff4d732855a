"""Images in tar shards, as WebDataset writes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Annotated

import numpy as np

from runner.components.data.image_settings import ImageSettings
from runner.components.data.layout.listing import Layout, Listing
from runner.components.data.pixels.packed_images import PackedFiles
from runner.components.data.pixels.pixel_settings import PixelSettings
from runner.components.data.shards.shard_files import ShardFiles, find_shards
from runner.components.data.shards.shard_identity import shard_parts
from runner.components.data.shards.shard_layout import Pool, shard_layout
from runner.components.data.shards.shard_settings import ShardSettings
from runner.components.data.shards.tar_images import TarImages
from runner.components.data.shards.tar_index import TarIndex, read_indexes
from runner.components.data.shards.tar_samples import LabelMember
from runner.engine.contracts import Data
from runner.engine.fingerprint import Part, identified_by
from runner.registry import register
from runner.roles import Aspect, FilePath, Role, Verbatim
from runner.user_folders import expand_home

# Kinds of members that one line lists at most
_MOST_KINDS = 5


def _identity(shards: ShardSettings, *, root: str, label: LabelMember, label_key: str) -> dict[str, Part]:
    """Return what identifies images in tar files: names, labels, and the bytes of the files of each split."""
    files, layout = _read(shards, root, label, label_key)
    listings = {"train": layout.train, "val": layout.val, **({"test": layout.test} if layout.test else {})}
    groups = {split: _packed(listing.files).groups.tolist() for split, listing in listings.items()}
    return shard_parts(layout, files.base, [files.name(path) for path in files.all()], groups)


@register("data")
@identified_by(_identity)
def webdataset(
    shards: ShardSettings,
    pixels: PixelSettings,
    images: ImageSettings,
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
    label: LabelMember,
    label_key: Annotated[str, Verbatim()],
) -> Data:
    """Load images from local tar files by WebDataset's convention: `0001.jpg` beside `0001.cls`, `.json` or `.txt`.

    The headers of each file are read once and kept in the user's cache; images are read at their places when they are
    needed. So the order of an epoch is a function of (seed, epoch), as for every data set, and a run resumes in the
    middle of an epoch. Splits come from words in the names of the files or from `splits`; missing ones are fixed,
    stratified parts by the names of the members, whatever the seed. Broken images are found when they are read.

    Returns:
        Images (N, 3, H, W) uint8, or (N, 1, H, W) if gray.

    Raises:
        DataError, ConfigError: A file or member is missing, damaged, no regular file, or has no label.
    """
    _, layout = _read(shards, root, label, label_key)
    window = shards.window if shards.order == "shards" else None
    return images.build(_without_names(layout), expand_home(root), pixels, window)


def _read(shards: ShardSettings, root: str, label: LabelMember, label_key: str) -> tuple[ShardFiles, Layout]:
    """Return the files, and the splits of the images in them."""
    files = find_shards(root, (".tar",), shards.splits)
    paths = files.all()
    indexes = dict(zip(paths, read_indexes(paths, label, label_key), strict=True))
    # Writers may count from 0 in each file
    unique = len({name for index in indexes.values() for name in index.names})
    prefixed = unique < sum(len(index.names) for index in indexes.values())
    pools = {}
    for split, own in files.splits.items():
        some = [(paths.index(path), indexes[path], files.name(path) if prefixed else None) for path in own]
        pools[split] = _pool([str(path) for path in paths], some)
    others = sum((index.others for index in indexes.values()), Counter[str]())
    listed = ", ".join(f"{kind} {count}" for kind, count in others.most_common(_MOST_KINDS))
    note = f"data: left out members that are neither images nor labels: {others.total()} ({listed})"
    return files, shard_layout(expand_home(root), pools, shards, (note,) if others else ())


def _pool(paths: list[str], indexes: list[tuple[int, TarIndex, str | None]]) -> Pool:
    """Return the images of the files of a split; a text is put before the names of those of a file."""
    names = [name if before is None else f"{before}/{name}" for _, index, before in indexes for name in index.names]
    images = TarImages(
        paths,
        np.concatenate([np.full(len(index.names), number, np.int64) for number, index, _ in indexes]),
        np.concatenate([index.offsets for _, index, _ in indexes]),
        np.concatenate([index.sizes for _, index, _ in indexes]),
        names,
    )
    return Pool(images, [label for _, index, _ in indexes for label in index.labels])


def _packed(files: object) -> PackedFiles:
    """Return the images of a split, which are packed."""
    assert isinstance(files, PackedFiles)
    return files


def _without_names(layout: Layout) -> Layout:
    """Return the splits without the names of the images, which take most of the memory."""

    def bare(listing: Listing) -> Listing:
        assert isinstance(listing.files, TarImages)
        return replace(listing, files=listing.files.without_names())

    test = None if layout.test is None else bare(layout.test)
    return replace(layout, train=bare(layout.train), val=bare(layout.val), test=test)
