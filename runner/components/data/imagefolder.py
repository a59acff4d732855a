"""Any folder of images, one folder per class."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache as cached
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch

from runner.components.data.cache import folder_of, say
from runner.components.data.decode import View
from runner.components.data.files import Bad, Files
from runner.components.data.layout import Layout, Listing, read_layout
from runner.components.data.prepare import Reading, first, images, looked_through
from runner.components.data.window import Crop
from runner.engine.contracts import Data, Images, Placement, Split
from runner.errors import DataError
from runner.registry import register
from runner.relations import Leaves, OneOf, With
from runner.roles import Aspect, FilePath, Role, Unnamed
from runner.schema import BOUNDS, HalfOpenUnit, NonNegativeInt, Pair, Positive, PositiveInt, Range

Share = Annotated[float, Range(0, 1, open_low=True)]
SMALL = 16384  # bytes; below this a decoder holds the GIL so often that a second thread slows it down


@register("data")
def imagefolder(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
    size: Annotated[list[PositiveInt], Pair("[height, width]")],
    centre: Share,
    crop: Annotated[Literal["resized"] | None, Aspect.TRAINING],
    crop_scale: Annotated[list[Share], BOUNDS, Aspect.TRAINING],
    crop_ratio: Annotated[list[Positive], BOUNDS, Aspect.TRAINING],
    batch_size: Annotated[PositiveInt, Aspect.TRAINING],
    val_fraction: Annotated[float, Range(0, 1, open_low=True, open_high=True), Leaves("test_fraction")],
    test_fraction: HalfOpenUnit,
    bad_images: Literal["error", "skip"],
    placement: Annotated[Placement, With("crop", "resized", OneOf(("auto", "disk"))), Role.EXECUTION],
    memory: Annotated[NonNegativeInt, Role.EXECUTION],
    cache: Annotated[str | None, Role.PATH, FilePath(expand=False)],
    workers: Annotated[NonNegativeInt | None, Role.EXECUTION, Unnamed()],
) -> Data:
    """Return the images under `root`, RGB, scaled and cropped to `size` [H, W], decoded once into a cache.

    Layouts: `root/train/<class>/*` with `root/val` and `root/test` if they exist, or `root/<class>/*`; missing splits
    (but for a test split beside `train`) are fixed, stratified parts by a hash of each file's path, whatever the seed.
    Raises DataError that names the folder, class or file that is missing, empty, unknown or broken. A set too large for
    `memory`, or one with random windows (`crop`), is decoded batch by batch. What is not decoded at once, and the test
    split where the run will read it, is looked through before anything is trained: every file, once, and again when it
    has changed. A file that breaks after that is a DataError with its name when it is read.
    """
    window = Crop((crop_scale[0], crop_scale[1]), (crop_ratio[0], crop_ratio[1]))
    view = View((size[0], size[1]), centre, window if crop else None)
    folder = Path(root).expanduser()
    layout = read_layout(folder, val_fraction=val_fraction, test_fraction=test_fraction)
    placement = whereabouts(placement, layout, view, memory)
    threads = default_threads(layout.train.files) if workers is None else max(1, workers)
    processes = (cores() if workers is None else workers) if placement == "disk" else 0
    reading = Reading(folder, view, threads, processes, bad_images == "skip", folder_of(cache))
    return read(layout, reading, placement, batch_size)


def read(layout: Layout, reading: Reading, placement: Placement, batch_size: int) -> Data:
    """Return the splits of a folder, the test split looked through when it is asked after."""
    streamed = placement == "disk"
    (train, lost), (val, more) = (opened(part, reading, streamed) for part in (layout.train, layout.val))
    check_classes(train, layout.classes, reading.root)
    test = layout.test
    looked = None if test is None else cached(partial(sound, test, reading))
    return Data(
        train=train,
        val=val,
        test=None if looked is None else lambda: late(looked(), reading, streamed),
        look=lambda: () if looked is None else looked()[1],
        shape=(3, *reading.view.size),
        classes=layout.classes,
        batch_size=batch_size,
        placement=placement,
        notes=(*lost, *more),
    )


def whereabouts(placement: Placement, layout: Layout, view: View, memory: int) -> Placement:
    """Return where the images are to lie: on the disk if they are another each time, or too large for `memory` MiB."""
    too_large = images_in(layout) * 3 * view.size[0] * view.size[1] > memory * 2**20
    return "disk" if view.crop or (placement == "auto" and too_large) else placement


def opened(listing: Listing, reading: Reading, streamed: bool) -> tuple[Split, tuple[str, ...]]:
    """Return a split, in memory or to be decoded batch by batch, and in words what was left out of it."""
    if streamed:
        good, words = sound(listing, reading)
        return stream(good, reading), words
    pixels, bad = images(listing.files, reading)
    good, words = without(listing, bad)
    return Images(pixels, good.labels), words


def stream(listing: Listing, reading: Reading) -> Files:
    """Return a split that is decoded batch by batch."""
    return Files(listing.files, listing.labels, reading.view, reading.threads, reading.processes)


def late(found: tuple[Listing, tuple[str, ...]], reading: Reading, streamed: bool) -> Split:
    """Return a split that was looked through before, and say what was left out; what broke since is an error."""
    listing, words = found
    for line in words:
        say(line)
    return stream(listing, reading) if streamed else opened(listing, replace(reading, skip=False), streamed=False)[0]


def sound(listing: Listing, reading: Reading) -> tuple[Listing, tuple[str, ...]]:
    """Return the part of a split that can be decoded, and in words what that leaves out."""
    return without(listing, looked_through(listing.files, reading))


def without(listing: Listing, bad: Bad) -> tuple[Listing, tuple[str, ...]]:
    """Return a split without what cannot be read, and that in words."""
    if not bad:
        return listing, ()
    good = torch.tensor([place not in bad for place in range(len(listing.files))])
    words = f"data: skipped {len(bad)} of {len(listing.files)} images, the first is {first(listing.files, bad)}"
    return listing.part(good.nonzero().flatten()), (words,)


def check_classes(train: Split, classes: tuple[str, ...], root: Path) -> None:
    """Raise DataError for a class of which no image is left to train on."""
    for label, count in enumerate(train.labels.bincount(minlength=len(classes)).tolist()):
        if count == 0:
            raise DataError(f"data.root: {root}: class '{classes[label]}' has no image to train on that can be read")


def images_in(layout: Layout) -> int:
    """Return the number of images in all splits."""
    return sum(len(part.files) for part in (layout.train, layout.val, layout.test) if part is not None)


def default_threads(files: list[str]) -> int:
    """Return one thread per core, or one where the files are small."""
    some = files[:: max(1, len(files) // 16)]
    average = sum(os.stat(file).st_size for file in some if os.path.exists(file)) / len(some)  # noqa: PTH110, PTH116
    return cores() if average > SMALL else 1


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
