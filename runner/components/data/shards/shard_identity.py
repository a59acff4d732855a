"""The identity of images in shards: names, labels and classes of each split, and the bytes of the files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.components.data.layout.listing import Layout
from runner.components.data.pixels.packed_images import PackedFiles
from runner.engine.file_digests import digest_files
from runner.engine.fingerprint import Part, counts_of, digest


def shard_parts(
    layout: Layout, base: Path, files: Sequence[str], file_of: Mapping[str, Sequence[int]]
) -> dict[str, Part]:
    """Return what identifies the images of each split.

    Args:
        layout: The splits.
        base: The folder below which the names of the files count.
        files: The names of all files.
        file_of: The number of the file (N,) that each image of a split is in.
    """
    _, contents = digest_files(base, files)
    splits = {"train": layout.train, "val": layout.val, **({"test": layout.test} if layout.test else {})}
    parts = {}
    for split, listing in splits.items():
        assert isinstance(listing.files, PackedFiles)
        labels = [layout.classes[label] for label in listing.labels.tolist()]
        rows = zip(listing.files.names(), labels, strict=True)
        parts[split] = Part(
            listing=digest(word for name, label in rows for word in (os.fsencode(name), label)),
            content=digest(contents[number] for number in sorted(set(file_of[split]))),
            counts=counts_of(listing.labels.tolist(), len(layout.classes)),
        )
    return parts
