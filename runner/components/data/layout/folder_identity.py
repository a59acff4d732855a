"""The identity of a folder of images: classes, relative names, sizes and contents of each split."""

from __future__ import annotations

import os
from pathlib import Path

from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.listing import Layout
from runner.engine.file_digests import digest_files
from runner.engine.fingerprint import Part, counts_of, digest


def layout_parts(layout: Layout, root: Path) -> dict[str, Part]:
    """Return what identifies the images of each split: classes, relative names, labels, sizes, and contents."""
    splits = {"train": layout.train, "val": layout.val, **({"test": layout.test} if layout.test else {})}
    names = {split: relative_paths(root, listing.files) for split, listing in splits.items()}
    sizes, contents = digest_files(root, [name for each in names.values() for name in each])
    parts, start = {}, 0
    for split, listing in splits.items():
        end = start + len(listing.files)
        labels = [layout.classes[label] for label in listing.labels.tolist()]
        rows = zip(names[split], labels, sizes[start:end], strict=True)
        parts[split] = Part(
            listing=digest(word for name, label, size in rows for word in (os.fsencode(name), label, str(size))),
            content=digest(contents[start:end]),
            counts=counts_of(listing.labels.tolist(), len(layout.classes)),
        )
        start = end
    return parts
