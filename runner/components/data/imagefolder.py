"""Any folder of images, with one folder per class."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache as cached
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch

from runner.batch_sizes import BatchSize
from runner.components.data.layout.folder_identity import layout_parts
from runner.components.data.layout.folder_layout import read_layout
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.layout.listing import Layout, Listing
from runner.components.data.pixels.auto_colors import open_training, resolve_colors
from runner.components.data.pixels.decode import CropBounds, View
from runner.components.data.pixels.decoder_messages import Findings
from runner.components.data.pixels.image_cache import cache_folder, print_note
from runner.components.data.pixels.image_files import ImageFiles
from runner.components.data.pixels.pixel_settings import PixelSettings
from runner.components.data.pixels.prepare_images import ReadSettings, first_unreadable, load_images, validate_files
from runner.engine.contracts import Data, Images, Placement, Sampling, Split
from runner.engine.file_digests import size_of
from runner.engine.fingerprint import Part, identified_by
from runner.engine.saving.storage import printable
from runner.engine.world import cores
from runner.errors import DataError
from runner.registry import register
from runner.relations import OneOf, With
from runner.roles import Aspect, FilePath, Role, Unnamed
from runner.schema import BOUNDS, ImageSize, NonNegativeInt, Positive, Range
from runner.user_folders import expand_home

_Share = Annotated[float, Range(0, 1, open_low=True)]
# Bytes. For smaller files decoders hold the GIL so often that a second thread slows them down
_SMALL_FILE = 16384


def _identity(layout: LayoutSettings, *, root: str) -> dict[str, Part]:
    """Return what identifies the images under a folder: classes, relative names, sizes and contents of each split."""
    folder = expand_home(root)
    return layout_parts(read_layout(folder, layout), folder)


@register("data")
@identified_by(_identity)
def imagefolder(
    layout: LayoutSettings,
    pixels: PixelSettings,
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
    size: ImageSize,
    center: _Share,
    crop: Annotated[Literal["resized"] | None, Aspect.TRAINING],
    crop_scale: Annotated[list[_Share], BOUNDS, Aspect.TRAINING],
    crop_ratio: Annotated[list[Positive], BOUNDS, Aspect.TRAINING],
    batch_size: Annotated[BatchSize, Aspect.TRAINING],
    sampling: Annotated[Sampling, Aspect.TRAINING],
    bad_images: Literal["error", "skip"],
    placement: Annotated[Placement, With("crop", "resized", OneOf(("auto", "disk"))), Role.EXECUTION],
    memory: Annotated[NonNegativeInt, Role.EXECUTION],
    cache: Annotated[str | None, Role.PATH, FilePath(expand=False, reads=None)],
    workers: Annotated[NonNegativeInt | None, Role.EXECUTION, Unnamed()],
) -> Data:
    """Load the images under `root` in RGB or gray, scaled to `size`, decoded once into a cache.

    Layouts: `root/<split>/<class>/*`, the splits by the usual words in any case or by `splits`, or `root/<class>/*`; or
    labels from a CSV file or file names. Missing splits (except a test split beside one for training) are fixed,
    stratified parts by a hash of each file's path, or whole `groups`, whatever the seed. A set larger than `memory`, or
    one with random crops (`crop`), is decoded batch by batch; its files, and a test split, are validated first.

    Returns:
        Images (N, 3, H, W) uint8, or (N, 1, H, W) if gray.

    Raises:
        DataError, ConfigError: A folder, class or file is missing, empty, unknown, ambiguous or broken.
    """
    files = read_layout(folder := expand_home(root), layout)
    view = View((size[0], size[1]), center, _crop_bounds(crop_scale, crop_ratio) if crop else None, pixels.fit)
    threads = _default_threads(files.train.files) if workers is None else max(1, workers)
    reading = ReadSettings(folder, view, threads, 0, bad_images == "skip", cache_folder(cache))
    reading, notes = resolve_colors(files.train.files, reading, pixels)
    place = _resolve_placement(placement, files, reading.view, memory)
    made = _build_data(files, _with_processes(reading, place, workers), place, batch_size, notes)
    return replace(made, sampling=sampling)


def _crop_bounds(scale: list[float], ratio: list[float]) -> CropBounds:
    """Return the bounds of a random crop."""
    return CropBounds((scale[0], scale[1]), (ratio[0], ratio[1]))


def _build_data(
    layout: Layout, reading: ReadSettings, placement: Placement, batch_size: int, notes: tuple[str, ...]
) -> Data:
    """Return the splits of a folder; the test split is validated when it is asked for."""
    streamed = placement == "disk"
    files = layout.train.files
    opened, reading, range_notes = open_training(
        files, reading, lambda reading: _open_split(layout.train, reading, streamed)
    )
    train, findings, train_messages = opened
    val, val_findings, val_messages = _open_split(layout.val, reading, streamed)
    findings.merge(val_findings.moved(len(files)))
    messages = findings.lines(files + layout.val.files)
    _check_classes(train, layout.classes, reading.root)
    test = layout.test
    validated = None if test is None else cached(partial(_validate_test, test, reading))
    return Data(
        train=train,
        val=val,
        test=None if validated is None else lambda: _open_test(validated(), reading, streamed),
        check_test=lambda: () if validated is None else validated()[1],
        shape=reading.view.shape,
        classes=layout.classes,
        batch_size=batch_size,
        placement=placement,
        notes=(*layout.notes, *notes, *range_notes, *train_messages, *val_messages, *messages),
        found=layout.found,
        reading={"depth": reading.view.colors.depth},
    )


def _with_processes(reading: ReadSettings, placement: Placement, workers: int | None) -> ReadSettings:
    """Return the settings with processes that load batches, if these are decoded one by one."""
    return replace(reading, processes=cores() if workers is None else workers) if placement == "disk" else reading


def _resolve_placement(placement: Placement, layout: Layout, view: View, memory: int) -> Placement:
    """Return where images are kept: on disk if they are cropped at random or exceed `memory` MiB."""
    too_large = _count_images(layout) * math.prod(view.shape) > memory * 2**20
    return "disk" if view.crop or (placement == "auto" and too_large) else placement


def _open_split(listing: Listing, reading: ReadSettings, streamed: bool) -> tuple[Split, Findings, tuple[str, ...]]:
    """Return a split, in memory or decoded batch by batch, what decoders found, and messages about skipped files."""
    if streamed:
        good, findings, messages = _validate_split(listing, reading)
        return _stream(good, reading), findings, messages
    images, findings = load_images(listing.files, reading)
    good, messages = _drop_unreadable(listing, findings)
    return Images(images, good.labels), findings, messages


def _stream(listing: Listing, reading: ReadSettings) -> ImageFiles:
    """Return a split that is decoded batch by batch."""
    return ImageFiles(listing.files, listing.labels, reading.view, reading.threads, reading.processes)


def _open_test(result: tuple[Listing, tuple[str, ...]], reading: ReadSettings, streamed: bool) -> Split:
    """Return a test split that was validated before and print the messages; a file broken since then is an error."""
    listing, messages = result
    for message in messages:
        print_note(message)
    if streamed:
        return _stream(listing, reading)
    return _open_split(listing, replace(reading, skip=False), streamed=False)[0]


def _validate_test(listing: Listing, reading: ReadSettings) -> tuple[Listing, tuple[str, ...]]:
    """Return the decodable part of a test split, and messages about its files."""
    good, findings, messages = _validate_split(listing, reading)
    return good, (*messages, *findings.lines(listing.files))


def _validate_split(listing: Listing, reading: ReadSettings) -> tuple[Listing, Findings, tuple[str, ...]]:
    """Return the decodable part of a split, what decoders found, and messages about skipped files."""
    findings = validate_files(listing.files, reading)
    good, messages = _drop_unreadable(listing, findings)
    return good, findings, messages


def _drop_unreadable(listing: Listing, findings: Findings) -> tuple[Listing, tuple[str, ...]]:
    """Return a split without unreadable files, and a message about them."""
    bad = findings.bad
    if not bad:
        return listing, ()
    good = torch.tensor([place not in bad for place in range(len(listing.files))])
    message = (
        f"data: skipped {len(bad)} of {len(listing.files)} images, the first is {first_unreadable(listing.files, bad)}"
    )
    return listing.part(good.nonzero().flatten()), (message,)


def _check_classes(train: Split, classes: tuple[str, ...], root: Path) -> None:
    """Raise DataError for a class without a readable training image."""
    for label, count in enumerate(train.labels.bincount(minlength=len(classes)).tolist()):
        if count == 0:
            raise DataError(
                f"data.root: {printable(root)}: class '{classes[label]}' has no image to train on that can be read"
            )


def _count_images(layout: Layout) -> int:
    """Return the number of images in all splits."""
    return sum(len(part.files) for part in (layout.train, layout.val, layout.test) if part is not None)


def _default_threads(files: list[str]) -> int:
    """Return one thread per core, or one thread for small files."""
    some = files[:: max(1, len(files) // 16)]
    average = sum(size_of(file) for file in some) / len(some)
    return cores() if average > _SMALL_FILE else 1
