"""Decide what `data.color=auto` and `data.depth=auto` mean, from the training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from runner.components.data.pixels.color_modes import Colors, DeepImageError, Depth
from runner.components.data.pixels.decoder_messages import Findings
from runner.components.data.pixels.image_cache import Manifest, load_or_build
from runner.components.data.pixels.pixel_settings import PixelSettings
from runner.components.data.pixels.prepare_images import ReadSettings, cache_key, scan_range
from runner.components.data.pixels.scan_images import Scan, scan_images
from runner.errors import ConfigError, StorageError

_Split = TypeVar("_Split")
_Resolved = tuple[ReadSettings, tuple[str, ...]]


def resolve_colors(files: Sequence[str], reading: ReadSettings, pixels: PixelSettings) -> _Resolved:
    """Return the settings with the knobs' colors, and a line about what `color=auto` decided.

    `depth=auto` stays open unless the images had to be scanned for `color=auto`.

    Args:
        files: The training images.
        reading: How they are read.
        pixels: The knobs.

    Raises:
        ConfigError: The range `depth` is empty.
    """
    colors = Colors(1 if pixels.color == "gray" else 3, _chosen_depth(pixels), pixels.alpha, pixels.extra_bands)
    if pixels.color != "auto":
        return _with_colors(reading, colors), ()
    scan = _cached_scan(files, reading)
    colors = replace(colors, channels=1 if scan.gray else 3)
    note = (
        "data: color=gray, as every training image is gray"
        if scan.gray
        else "data: color=rgb, as not every training image is gray"
    )
    reading = _with_colors(reading, colors)
    if colors.depth != "auto":
        return reading, (note,)
    reading, notes = _with_range(reading, scan)
    return reading, (note, *notes)


def open_training(
    files: Sequence[str], reading: ReadSettings, open_split: Callable[[ReadSettings], _Split]
) -> tuple[_Split, ReadSettings, tuple[str, ...]]:
    """Return the training split, the settings with the depth decided, and a line about the range if it has one.

    Most sets have no image of more than 8 bits. So a range is only looked for when the first such image is met.
    """
    if reading.view.colors.depth != "auto":
        return open_split(reading), reading, ()
    try:
        return open_split(reading), _with_range(reading, Scan())[0], ()
    except DeepImageError as error:
        scan = Scan(**error.facts) if error.facts else scan_range(files, reading)
    reading, notes = _with_range(reading, scan)
    return open_split(reading), reading, notes


def _with_range(reading: ReadSettings, scan: Scan) -> _Resolved:
    """Return the settings with the range of the scanned images as depth, and a line about it if there is one."""
    colors = reading.view.colors
    if scan.low > scan.high:
        return _with_colors(reading, replace(colors, depth=None)), ()
    images = "1 training image has" if scan.deep == 1 else f"{scan.deep} training images have"
    values = f"values {scan.low:g} to {scan.high:g} become 0 to 255 in all splits"
    note = f"data: {images} more than 8 bits, {values} (data.depth)"
    return _with_colors(reading, replace(colors, depth=(scan.low, scan.high))), (note,)


def _with_colors(reading: ReadSettings, colors: Colors) -> ReadSettings:
    """Return the settings with other colors."""
    return replace(reading, view=replace(reading.view, colors=colors))


def _chosen_depth(pixels: PixelSettings) -> Depth | Literal["auto"]:
    """Return the depth that the config names."""
    if not isinstance(pixels.depth, list):
        return pixels.depth
    low, high = pixels.depth
    if low == high:
        raise ConfigError(f"data.depth: got [{low:g}, {high:g}], must be [low, high] with low < high")
    return (low, high)


def _cached_scan(files: Sequence[str], reading: ReadSettings) -> Scan:
    """Return the facts about the images, from the cache if they were read before."""

    def scan() -> Scan:
        return scan_images(files, reading.threads, f"reading the headers in {reading.root}", want_gray=True)

    if reading.caches is None:
        return scan()
    place = reading.caches / cache_key(files, reading.root, ("scan",))
    try:
        return Scan(**load_or_build(place, lambda: Manifest(0, "", Findings(), vars(scan())), 0).facts)
    except StorageError:
        # Whoever needs the next cache reports it
        return scan()
