"""Knobs that say how images are kept, cropped and batched, and the data set of images that are listed by split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache as cached
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from runner.batch_sizes import BatchSize
from runner.components.data.layout.listing import Layout, Listing
from runner.components.data.pixels.auto_colors import open_training, resolve_colors, without_range
from runner.components.data.pixels.decode import CropBounds, View
from runner.components.data.pixels.decoder_messages import Findings
from runner.components.data.pixels.image_cache import cache_folder, print_note
from runner.components.data.pixels.image_files import ImageFiles
from runner.components.data.pixels.packed_images import ImageSource, PackedFiles, bytes_of, joined
from runner.components.data.pixels.pixel_settings import PixelSettings
from runner.components.data.pixels.prepare_images import ReadSettings, first_unreadable, load_images, validate_files
from runner.engine.contracts import Data, Images, Placement, Sampling, Split
from runner.engine.saving.storage import printable
from runner.engine.shard_order import ShardOrder
from runner.engine.world import cores
from runner.errors import DataError
from runner.registry import shared_knobs
from runner.relations import OneOf, With
from runner.roles import Aspect, FilePath, Role, Unnamed
from runner.schema import BOUNDS, ImageSize, NonNegativeInt, Positive, Range

_Share = Annotated[float, Range(0, 1, open_low=True)]
# Bytes. For smaller files decoders hold the GIL so often that a second thread slows them down
_SMALL_FILE = 16384


@shared_knobs
class ImageSettings:
    """The way from images to batches; a data set asks for `images`."""

    def __init__(
        self,
        *,
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
    ) -> None:
        self._size, self._center, self._skip = size, center, bad_images == "skip"
        self._crop = CropBounds((crop_scale[0], crop_scale[1]), (crop_ratio[0], crop_ratio[1])) if crop else None
        self._batch_size, self._sampling, self._workers = batch_size, sampling, workers
        self._placement, self._memory, self._cache = placement, memory, cache

    def build(self, files: Layout, root: Path, pixels: PixelSettings, window: int | None = None) -> Data:
        """Return the data set of the listed images.

        Args:
            files: The images by split.
            root: Where they are, for messages and the cache.
            pixels: How they are decoded.
            window: The number of shards whose images an epoch mixes; None for any order.
        """
        view = View((self._size[0], self._size[1]), self._center, self._crop, pixels.fit)
        workers = self._workers
        threads = _default_threads(files.train.files) if workers is None else max(1, workers)
        reading = ReadSettings(root, view, threads, 0, self._skip, cache_folder(self._cache))
        reading, notes = resolve_colors(files.train.files, reading, pixels)
        place = _resolve_placement(self._placement, files, reading.view, self._memory)
        made = _build_data(files, _with_processes(reading, place, workers), place, self._batch_size, notes, window)
        return replace(made, sampling=self._sampling)


def _build_data(
    layout: Layout,
    reading: ReadSettings,
    placement: Placement,
    batch_size: int,
    notes: tuple[str, ...],
    window: int | None,
) -> Data:
    """Return the splits of a folder; the test split is validated when it is asked for."""
    streamed = placement == "disk"
    files = layout.train.files
    if streamed and _is_trusted(layout.train, reading):
        reading = without_range(reading)
    opened, reading, range_notes = open_training(
        files, reading, lambda reading: _open_split(layout.train, reading, streamed)
    )
    train, findings, train_messages = opened
    val, val_findings, val_messages = _open_split(layout.val, reading, streamed)
    order = None if window is None else _shard_order(layout.train, findings, window)
    findings.merge(val_findings.moved(len(files)))
    messages = findings.lines(joined(files, layout.val.files))
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
        order=order,
        notes=(*layout.notes, *notes, *range_notes, *train_messages, *val_messages, *messages),
        found=layout.found,
        reading={"depth": reading.view.colors.depth},
    )


def _shard_order(listing: Listing, findings: Findings, window: int) -> ShardOrder:
    """Return the order of epochs that keeps to shards, of the images that can be read."""
    assert isinstance(listing.files, PackedFiles)
    groups = np.delete(listing.files.groups, sorted(findings.bad))
    return ShardOrder(torch.from_numpy(groups), window)


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
    if _is_trusted(listing, reading):
        return listing, Findings(), ()
    findings = validate_files(listing.files, reading)
    good, messages = _drop_unreadable(listing, findings)
    return good, findings, messages


def _is_trusted(listing: Listing, reading: ReadSettings) -> bool:
    """Return True for shards whose broken images are an error: to look for them would be to read all shards first."""
    return isinstance(listing.files, PackedFiles) and not reading.skip


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


def _default_threads(files: Sequence[ImageSource]) -> int:
    """Return one thread per core, or one thread for small files."""
    some = files[:: max(1, len(files) // 16)]
    average = sum(bytes_of(file) for file in some) / len(some)
    return cores() if average > _SMALL_FILE else 1
