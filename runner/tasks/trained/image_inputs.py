"""Images in any form as the run of a model reads them: files, folders, patterns, arrays, tensors, Pillow images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner import user_paths
from runner.annotations import annotation
from runner.assemble.predictor import DataFacts
from runner.components.data.in_memory.array_values import channel_axis, pixel_factor, to_features, to_images
from runner.components.data.layout.folder_listing import Skipped, images_under
from runner.components.data.pixels.color_modes import Colors
from runner.components.data.pixels.decode import View, to_pixels
from runner.components.data.pixels.decoder_messages import Findings
from runner.components.data.pixels.fit_image import Fit
from runner.components.data.pixels.image_files import decode_in_chunks
from runner.components.data.pixels.image_kinds import is_image
from runner.engine.saving.storage import printable
from runner.engine.world import cores
from runner.errors import DataError, brief, escaped
from runner.registry import Config
from runner.schema import check
from runner.user_folders import expand_home

_Array = NDArray[Any]
# Channels of the images that files can become
_COLORS = (1, 3)
# Knobs of a data set that say how an image file is read
_KNOBS = {"fit", "center", "depth", "alpha", "extra_bands"}
_EXPECTED = "files, Pillow images, or arrays (N, C, H, W), (N, H, W, C) or (N, H, W)"
# Axis lengths that are taken for channels
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ImageReader:
    """Reads images as the data loading of a run did in evaluation: colors, depth, orientation, size, crop.

    Attributes:
        facts: What the model knows of its data.
        view: How an image file is seen; None if the examples of the run are no images.
    """

    facts: DataFacts
    view: View | None

    def files(self, files: Sequence[str], findings: Findings, what: str, *, skip: bool) -> Iterator[Tensor]:
        """Yield the images of files in chunks (n, C, H, W) uint8, with a progress bar that says `what`.

        Raises DataError for the first file that cannot be read; with `skip` such files are left out and noted in
        `findings`.
        """
        view = self.view_of_files()
        for chunk in decode_in_chunks(files, view, cores(), findings, what, keep=skip):
            yield torch.from_numpy(chunk)

    def view_of_files(self) -> View:
        """Return how an image file is seen; raises DataError if the examples of the run are no images."""
        if self.view is None:
            shape = " x ".join(map(str, self.facts.shape))
            raise DataError(
                f"task.images: the examples of this run are no images in gray or color ({shape}); predict from arrays "
                "in Python: runner.load(<run folder>).predict(array)"
            )
        return self.view

    def array(self, values: Any) -> Tensor:
        """Return arrays or tensors as examples (N, C, H, W): uint8 of the size that the model takes, or features.

        Images are (N, C, H, W), (N, H, W, C), (N, H, W), or one image without N; whole numbers in 0..255, or floats in
        0..1. Features are (N, D) or (D,).
        """
        found = _as_array(values)
        if self.facts.shape[1:] == (1, 1):
            return self._features(found)
        batch, axis = self._as_batch(found)
        where = f"images of shape {tuple(found.shape)}"
        pixels = to_images(batch, axis, pixel_factor(batch, where))
        return pixels if pixels.shape[1:] == self.facts.shape else self.fitted(pixels)

    def fitted(self, pixels: Tensor) -> Tensor:
        """Return images (N, C, H, W) uint8 of any size in the size and colors of the model, as image files are."""
        channels = pixels.shape[1]
        if self.view is None or channels not in _CHANNELS:
            raise DataError(f"images: got shape {tuple(pixels.shape[1:])}; expected {self.facts.shape}")
        arrays = pixels.cpu().numpy()
        planes = arrays[:, 0] if channels == 1 else arrays.transpose(0, 2, 3, 1)
        return self.pillow([_to_pillow(each) for each in planes])

    def pillow(self, images: Sequence[Any]) -> Tensor:
        """Return Pillow images as examples (N, C, H, W) uint8."""
        view = self.view_of_files()
        return torch.from_numpy(np.stack([to_pixels(image.copy(), view) for image in images]))

    def _features(self, values: _Array) -> Tensor:
        """Return features (N, D) or (D,) as (N, D, 1, 1) float32."""
        size = self.facts.shape[0]
        batch = values.reshape(1, -1) if values.ndim == 1 else values.reshape(len(values), -1)
        if batch.shape[1] != size:
            raise DataError(f"features: got shape {tuple(values.shape)}; expected (N, {size})")
        return to_features(batch, "features")

    def _as_batch(self, values: _Array) -> tuple[_Array, int | None]:
        """Return images with an axis N, and the axis of the channels, None for (N, H, W)."""
        shape, own = values.shape, self.facts.shape
        if len(shape) == 4:
            axis = 1 if shape[1:] == own else channel_axis("auto", shape, f"images of shape {tuple(shape)}")
            return values, axis
        if len(shape) == 2:
            return values[None], None
        if len(shape) != 3:
            raise DataError(f"images: got shape {tuple(shape)}; expected (N, C, H, W), (N, H, W, C) or (N, H, W)")
        if shape != own and own[0] == 1 and shape[1:] == own[1:]:
            return values, None
        if shape != own and shape[-1] in _CHANNELS and shape[0] not in _CHANNELS:
            return values[None], 3
        return (values[None], 1) if shape == own or shape[0] in _CHANNELS else (values, None)


def _as_array(values: Any) -> _Array:
    """Return values as an array of numbers; raises DataError for any other object."""
    if isinstance(values, Tensor):
        # NumPy has no bfloat16
        return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
    try:
        found = np.asarray(values)
    except (TypeError, ValueError):
        # Lists of different lengths
        found = np.empty((), object)
    if found.dtype.kind not in "biuf" or not found.ndim:
        raise DataError(f"images: got {brief(escaped(type(values).__name__))}; expected {_EXPECTED}")
    return found


def _to_pillow(pixels: _Array) -> Any:
    """Return an array (H, W) or (H, W, C) uint8 as a Pillow image."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def image_reader(data: Config, facts: DataFacts) -> ImageReader:
    """Return what reads images for a model, from the `data` of its config and what it knows of its data.

    A data set without such knobs reads image files as `data=imagefolder` does by default.
    """
    channels, *size = facts.shape
    if channels not in _COLORS or tuple(size) == (1, 1):
        return ImageReader(facts, None)
    # A user may have edited the saved config
    for knob in _KNOBS & data.keys():
        if (kind := annotation("data", str(data["name"]), knob)) is not None:
            check(f"data.{knob}", data[knob], kind)
    knobs: Mapping[str, Any] = data
    colors = Colors(
        channels, _depth(knobs.get("depth"), facts), knobs.get("alpha", "drop"), knobs.get("extra_bands", "error")
    )
    is_files = "fit" in knobs
    fit: Fit = knobs["fit"] if is_files else "crop"
    center = float(knobs["center"]) if is_files else 1.0
    return ImageReader(facts, View((size[0], size[1]), center, None, fit, colors))


def _depth(given: Any, facts: DataFacts) -> Any:
    """Return how values of more than 8 bits are scaled: as the knob says, or as the training images decided."""
    found = facts.reading.get("depth") if given in (None, "auto") else given
    return (float(found[0]), float(found[1])) if isinstance(found, (list, tuple)) and len(found) == 2 else found


def find_images(place: str | os.PathLike[str], key: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the image files that a file, a folder or a pattern names, sorted, and lines about what is left out.

    Raises DataError, about `key`, if there are none.
    """
    path = expand_home(Path(place))
    skipped = Skipped()
    if user_paths.is_dir(path, error=DataError, key=key):
        files = _under(path, skipped, key)
    elif user_paths.exists(path, error=DataError, key=key):
        files = [str(path)]
    else:
        files = []
        for found in user_paths.matching(str(path)):
            if user_paths.is_dir(found, error=DataError, key=key):
                files += _under(found, skipped, key)
            elif is_image(str(found)):
                files.append(str(found))
    if not files:
        what = f"{key}: got '{brief(escaped(str(place)))}'"
        raise DataError(f"{what}; expected an image file, a folder with images, or a pattern that matches some")
    return list(dict.fromkeys(files)), skipped.notes()


def _under(folder: Path, skipped: Skipped, key: str) -> list[str]:
    """Return the images under a folder."""
    try:
        return images_under(folder, skipped)
    except OSError as error:
        raise DataError(f"{key}: {printable(Path(error.filename or folder))}: {error.strerror}") from error


def folder_classes(files: Sequence[str], place: str | os.PathLike[str], classes: Sequence[str]) -> list[int | None]:
    """Return the label of each file by the folder below `place` that it is in, None if no class has that name."""
    labels = {name: number for number, name in enumerate(classes)}
    root = Path(expand_home(Path(place)))
    found: list[int | None] = []
    for file in files:
        parts = Path(file).relative_to(root).parts if Path(file).is_relative_to(root) else ()
        found.append(labels.get(parts[0]) if len(parts) > 1 else None)
    return found
