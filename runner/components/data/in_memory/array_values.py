"""Arrays as examples: images as uint8 (N, C, H, W), features as float32 (N, D, 1, 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.errors import DataError, brief

_Array = NDArray[Any]
Kind = Literal["auto", "images", "features"]
Layout = Literal["auto", "nhwc", "nchw"]
_WHITE = 255
# Numbers of channels by which the axis of channels is recognized
_CHANNELS = (1, 3, 4)
# Examples that are converted together
_CHUNK = 1024
# Error of float32 in standard deviations of a feature that is worth a line
_COARSE = 1e-3
# Features that one line names at most
_MOST_NAMES = 6


def resolve_kind(kind: Kind, shape: Sequence[int], where: str) -> Literal["images", "features"]:
    """Return what arrays of a shape hold: features if they have two axes, images if they have three or four."""
    if kind == "auto" and len(shape) in (2, 3, 4):
        return "features" if len(shape) == 2 else "images"
    if len(shape) < 2 or (kind != "features" and len(shape) not in (3, 4)):
        expected = "(N, D)" if kind == "features" else "(N, H, W), (N, H, W, C), (N, C, H, W) or features (N, D)"
        raise DataError(f"{where}: has shape {tuple(shape)}, must be {expected}")
    return "features" if kind == "features" else "images"


def channel_axis(layout: Layout, shape: Sequence[int], where: str) -> int | None:
    """Return the axis of the channels: None for (N, H, W), 1 or 3. Raises DataError if the shape leaves it open."""
    if len(shape) == 3:
        return None
    if layout != "auto":
        return 3 if layout == "nhwc" else 1
    axes = [axis for axis in (1, 3) if shape[axis] in _CHANNELS]
    if len(axes) != 1:
        why = "both the second and the last axis may be" if axes else "neither the second nor the last axis looks like"
        raise DataError(f"{where}: has shape {tuple(shape)}, and {why} channels; set data.layout=nhwc or nchw")
    return axes[0]


def pixel_factor(values: _Array, where: str) -> int:
    """Return the factor that turns pixel values into 0..255: 255 for booleans and floats in 0..1, else 1.

    Raises DataError for values that are neither.
    """
    if values.dtype.kind == "b":
        return _WHITE
    unit = values.dtype.kind == "f" and _fits(values, _WHITE)
    factor = _WHITE if unit else 1
    check_pixels(values, factor, where)
    return factor


def check_pixels(values: _Array, factor: int, where: str) -> None:
    """Raise DataError if values times the factor are no pixels: 255 takes 0..1, 1 takes whole numbers in 0..255."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: has type {values.dtype.name}, must be numbers")
    if not _fits(values, factor):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{where}: {_non_finite(values)}")
        expected = "0..1, as those to train on" if factor == _WHITE else "whole in 0..255, or floats in 0..1"
        raise DataError(
            f"{where}: pixels are in {values.min():g}..{values.max():g}, must be {expected}; data.kind=features "
            "takes any number"
        )


def _fits(values: _Array, factor: int) -> bool:
    """Return True if values times the factor are pixels; NaN is none."""
    if values.dtype == np.uint8:
        return factor == 1 or bool(values.max() <= 1)
    high = 1 if factor == _WHITE else _WHITE
    for part in _chunks(values):
        if not ((part >= 0) & (part <= high)).all():
            return False
        if factor == 1 and part.dtype.kind == "f" and not (part == np.rint(part)).all():
            return False
    return True


def to_images(values: _Array, axis: int | None, factor: int) -> Tensor:
    """Return pixels (N, C, H, W) uint8 of checked values, rounded to the nearest."""
    ordered = values[:, None] if axis is None else np.moveaxis(values, axis, 1)
    found = np.empty(ordered.shape, np.uint8)
    for start in range(0, len(found), _CHUNK):
        part = ordered[start : start + _CHUNK]
        found[start : start + _CHUNK] = part if factor == 1 else np.rint(part.astype(np.float64) * factor)
    return torch.from_numpy(found)


def to_features(values: _Array, where: str, names: Sequence[str] | None = None) -> Tensor:
    """Return features (N, D, 1, 1) float32 of (N, ...), which is flattened.

    Raises:
        DataError: A value is not a number, is NaN or infinite, or is too large for float32.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: has type {values.dtype.name}, must be numbers")
    flat = values.reshape(len(values), -1)
    if flat.shape[1] == 0:
        raise DataError(f"{where}: has no features")
    with np.errstate(over="ignore"):
        found = flat.astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{where}: {_non_finite(found, names)}")
    return torch.from_numpy(found)[:, :, None, None]


def coarse_features(values: _Array, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return a line about features (N, ...) that are too coarse in float32, such as time stamps; else nothing."""
    if values.dtype.itemsize <= 4 and values.dtype.kind == "f":
        return ()
    flat = values.reshape(len(values), -1)
    spread = flat.std(0, dtype=np.float64)
    step = np.abs(flat).max(0).astype(np.float64) * np.finfo(np.float32).eps / 2
    coarse = np.flatnonzero((spread > 0) & (step > _COARSE * spread))
    if not len(coarse):
        return ()
    shown = ", ".join(_feature_name(i, names) for i in coarse[:_MOST_NAMES].tolist())
    more = f" and {len(coarse) - _MOST_NAMES} more" if len(coarse) > _MOST_NAMES else ""
    return (
        f"data: float32 rounds {shown}{more} by more than {_COARSE:g} standard deviations; subtract the mean first",
    )


def _feature_name(position: int, names: Sequence[str] | None) -> str:
    """Return what a message calls a feature."""
    return f"feature {position}" if names is None else f"'{brief(names[position])}'"


def _non_finite(values: _Array, names: Sequence[str] | None = None) -> str:
    """Return how many values are NaN or infinite, and where the first is."""
    wrong = ~np.isfinite(values)
    row, *rest = np.unravel_index(int(wrong.argmax()), values.shape)
    place = f", {_feature_name(int(rest[0]), names)}" if values.ndim == 2 else ""
    first = values[(row, *rest)]
    return f"{int(wrong.sum())} values are NaN or infinite in float32, the first ({first:g}) in example {row}{place}"


def _chunks(values: _Array) -> list[_Array]:
    """Return views of the examples in chunks."""
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
