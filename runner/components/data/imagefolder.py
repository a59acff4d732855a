"""Any folder of images, one folder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from runner.components.data.decode import Files, inspect, read
from runner.components.data.layout import Layout, Listing, read_layout
from runner.engine.contracts import Data, Images, Split
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegativeInt, PositiveInt, Range

OpenUnit = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
SMALL = 16384  # bytes; below this a decoder holds the GIL so often that a second thread slows it down


@register("data")
def imagefolder(
    *,
    root: str,
    size: list[PositiveInt],
    batch_size: PositiveInt,
    val_fraction: OpenUnit,
    test_fraction: HalfOpenUnit,
    memory: NonNegativeInt,
    workers: PositiveInt | None,
) -> Data:
    """Return the images under `root`, decoded once into memory, RGB, cropped and scaled to `size` [H, W].

    Layouts: `root/train/<class>/*` with `root/val` and `root/test` if they exist, or `root/<class>/*`; missing splits
    (but for a test split beside `train`) are fixed, stratified parts by a hash of each file's path, whatever the seed.
    Raises DataError that names the folder, class or file that is missing, empty, unknown or broken; a set too large for
    `memory` is looked through first and decoded batch by batch. The test split is decoded when it is opened.
    """
    if len(size) != 2:
        raise ConfigError(f"data.size: got {size}, must be [height, width]")
    if val_fraction + test_fraction >= 1:
        raise ConfigError(f"data.val_fraction: got {val_fraction:g}, must be < 1 - test_fraction (={test_fraction:g})")
    layout = read_layout(Path(root).expanduser(), val_fraction=val_fraction, test_fraction=test_fraction)
    height, width = size
    workers = workers or default_workers(layout.train.files)
    fits = images_in(layout) * 3 * height * width <= memory * 2**20

    def opened(listing: Listing) -> Split:
        if fits:
            return Images(read(listing.files, (height, width), workers), listing.labels)
        inspect(listing.files, workers)
        return Files(listing.files, listing.labels, (height, width), workers)

    test = layout.test
    return Data(
        train=opened(layout.train),
        val=opened(layout.val),
        test=None if test is None else lambda: opened(test),
        shape=(3, height, width),
        classes=layout.classes,
        batch_size=batch_size,
    )


def images_in(layout: Layout) -> int:
    """Return the number of images in all splits."""
    return sum(len(part.files) for part in (layout.train, layout.val, layout.test) if part is not None)


def default_workers(files: list[str]) -> int:
    """Return one thread per core, or one where the files are small."""
    some = files[:: max(1, len(files) // 16)]
    average = sum(os.stat(file).st_size for file in some if os.path.exists(file)) / len(some)  # noqa: PTH110, PTH116
    return (os.cpu_count() or 1) if average > SMALL else 1
