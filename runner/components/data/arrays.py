"""Arrays of an .npz file: images or features, with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from runner.components.data.in_memory.array_names import Chosen, check_splits, choose_arrays
from runner.components.data.in_memory.array_values import (
    Kind,
    Layout,
    channel_axis,
    check_pixels,
    coarse_features,
    pixel_factor,
    resolve_kind,
    to_features,
    to_images,
)
from runner.components.data.in_memory.npz_file import list_arrays, listed, read_arrays
from runner.components.data.in_memory.split_examples import InMemorySettings
from runner.components.data.labels.class_labels import label_values, number_classes
from runner.components.data.packed_identity import file_identity
from runner.engine.contracts import Data, Images
from runner.engine.fingerprint import identified_by
from runner.engine.saving.storage import printable
from runner.errors import DataError, escaped
from runner.registry import register
from runner.relations import Fields
from runner.roles import Aspect, FilePath, Role
from runner.user_folders import expand_home

# {train: x_train, val: x_val, test: x_test}
_BySplit = Annotated[dict[str, str], Fields((("train", str), ("val", str | None), ("test", str | None)), ("train",))]


@register("data")
@identified_by(file_identity)
def arrays(
    settings: InMemorySettings,
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
    inputs: str | _BySplit | None,
    labels: str | _BySplit | None,
    kind: Kind,
    layout: Layout,
) -> Data:
    """Load the arrays of an .npz file, without pickle: images (N, H, W), (N, H, W, C), (N, C, H, W) or features (N, D).

    Arrays are found by the usual names: `x_train`, `y_train`, `x_test`, `y_test` as in Keras's files, or `x` and `y`,
    `images` and `labels`. Missing splits (except a test split beside `x_train`) are fixed, stratified parts by
    position, whatever the seed.
    Pixels are whole numbers in 0..255; booleans and floats in 0..1 are multiplied by 255 and rounded, and a line says
    so. Features are any finite numbers, kept as float32 with one channel per feature and 1x1 pixels, so that
    `preprocess=standardize` standardizes each. Labels are whole numbers, names, or one-hot rows.

    Returns:
        Images (N, C, H, W) uint8 or features (N, D, 1, 1) float32, classes in natural order of their names.

    Raises:
        ConfigError, DataError: An array is missing, ambiguous, damaged, too large, or holds what it must not.
    """
    check_splits(inputs, labels)
    path = expand_home(root)
    where = f"data.root: {printable(path)}"
    headers = list_arrays(path)
    chosen = choose_arrays(headers, inputs, labels, where, listed(headers))
    used = (*chosen.inputs.values(), *chosen.labels.values())
    values = read_arrays(path, [headers[name] for name in used], settings.memory)
    _check_lengths(chosen, values, where)
    classes, numbers = _number_labels({split: values[name] for split, name in chosen.labels.items()}, chosen, where)
    read = {split: values[name] for split, name in chosen.inputs.items()}
    pixels, notes = _examples(read, chosen, kind, layout, where)
    examples = {split: Images(pixels[split], numbers[split]) for split in pixels}
    return settings.build(
        examples, classes, (*chosen.notes, *notes), lambda split, place: f"{escaped(chosen.inputs[split])}[{place}]"
    )


def _number_labels(
    labels: Mapping[str, NDArray[Any]], chosen: Chosen, where: str
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the class names, and the labels (N,) int64 of each split."""
    places = {split: f"{where}: array '{name}'" for split, name in chosen.labels.items()}
    found = {split: label_values(values, places[split], negative=False) for split, values in labels.items()}
    return number_classes(found, places)


def _check_lengths(chosen: Chosen, values: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raise DataError for an array without examples, or with more or fewer than it has labels."""
    for split, name in chosen.inputs.items():
        label = chosen.labels[split]
        counts = [values[each].shape[0] if values[each].ndim else 0 for each in (name, label)]
        if counts[0] != counts[1]:
            raise DataError(f"{where}: '{name}' has {counts[0]} examples, and '{label}' has {counts[1]} labels")
        if counts[0] == 0:
            raise DataError(f"{where}: '{name}' has no examples (shape {values[name].shape})")


def _examples(
    inputs: Mapping[str, NDArray[Any]], chosen: Chosen, kind: Kind, layout: Layout, where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the examples of each split as images or features, all of the same shape, and lines about them."""
    places = {split: f"{where}: array '{name}'" for split, name in chosen.inputs.items()}
    first = next(iter(inputs))
    for split, values in inputs.items():
        if values.shape[1:] != inputs[first].shape[1:]:
            raise DataError(
                f"{places[split]}: examples have shape {values.shape[1:]}, must be {inputs[first].shape[1:]} as in "
                f"'{chosen.inputs[first]}'"
            )
        if 0 in values.shape:
            raise DataError(f"{places[split]}: has shape {values.shape}, which is empty")
    if resolve_kind(kind, inputs[first].shape, places[first]) == "features":
        found = {split: to_features(values, places[split]) for split, values in inputs.items()}
        return found, coarse_features(inputs[first])
    axis = channel_axis(layout, inputs[first].shape, places[first])
    factor = pixel_factor(inputs[first], places[first])
    for split, values in inputs.items():
        check_pixels(values, factor, places[split])
    return {split: to_images(values, axis, factor) for split, values in inputs.items()}, _scaling(inputs[first], factor)


def _scaling(values: NDArray[Any], factor: int) -> tuple[str, ...]:
    """Return a line about pixels that are not stored as uint8."""
    if factor == 1:
        return () if values.dtype == np.uint8 else (f"data: {values.dtype.name} pixels in 0..255, stored as uint8",)
    kind = "boolean pixels" if values.dtype.kind == "b" else f"{values.dtype.name} pixels in 0..1"
    return (f"data: {kind}, multiplied by 255 and rounded to uint8",)
