"""Histograms, images and texts as TensorBoard summaries."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

_BUCKETS = 30
# Maximum number of images in a grid.
_MAX_IMAGES = 32
# Minimum pixels of the shorter side of an image in a grid.
_MIN_SIDE = 64
# PNG color type -> channels (PNG specification, 11.2.2).
_COLORSPACES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def histogram(tag: str, values: np.ndarray) -> Any:
    """Return a histogram summary of the finite values of an array (n,).

    TensorBoard stores it as buckets (k, 3): left edge, right edge, count.
    """
    from tensorboard.plugins.histogram import metadata

    values = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(values, bins=_BUCKETS) if values.size else (np.zeros(0), np.zeros(1))
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return value(tag, buckets, metadata.create_summary_metadata(display_name="", description=""))


def text(tag: str, markdown: str) -> Any:
    """Return a text summary."""
    from tensorboard.plugins.text import metadata

    return value(tag, np.array(markdown.encode(), dtype=object), metadata.create_summary_metadata("", ""))


def value(tag: str, array: np.ndarray, metadata: Any) -> Any:
    """Return a `Summary.Value` with an array, for the plugin that `metadata` names."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor(array))


def tensor(array: np.ndarray) -> Any:
    """Return an array of floats, or of bytes objects, as a `TensorProto`.

    TensorBoard's own `tensor_util` does the same but imports 60 modules, a fifth of the start-up time after torch's.
    """
    from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2, types_pb2

    sizes = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    shape = tensor_shape_pb2.TensorShapeProto(dim=sizes)
    if array.dtype == object:
        texts = array.reshape(-1).tolist()
        return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=texts)
    kind = {np.float32: types_pb2.DT_FLOAT, np.float64: types_pb2.DT_DOUBLE}[array.dtype.type]
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return tensor_pb2.TensorProto(dtype=kind, tensor_shape=shape, tensor_content=content)


def image(tag: str, images: np.ndarray) -> Any:
    """Return an image summary of an image (C, H, W), or of a grid of the first images of a batch (B, C, H, W)."""
    return encoded(tag, _png(grid(images if images.ndim == 4 else images[None])))


def encoded(tag: str, picture: bytes) -> Any:
    """Return an image summary of the bytes of a PNG."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    # The header chunk comes first (PNG specification, 11.2.2).
    width, height = struct.unpack(">II", picture[16:24])
    summary = Summary.Image(
        height=height, width=width, colorspace=_COLORSPACES[picture[25]], encoded_image_string=picture
    )
    return Summary.Value(tag=tag, image=summary)


def grid(images: np.ndarray) -> np.ndarray:
    """Return images (B, C, H, W) as one image (height, width, 3 or 1) uint8.

    Small images are enlarged without interpolation. Floats are scaled so that the smallest value of the batch is black
    and the largest is white. Images without three channels are shown as their first channel in gray.
    """
    images = _pixels(images[:_MAX_IMAGES])
    images = images if images.shape[1] == 3 else images[:, :1]
    scale = -(-_MIN_SIDE // min(images.shape[2:]))
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    count, channels, height, width = images.shape
    # The grid is about twice as wide as high.
    columns = min(count, max(1, round((2 * count) ** 0.5)))
    rows = -(-count // columns)
    gap = 2
    sheet = np.full((rows, columns, height + gap, width + gap, channels), 255, dtype=np.uint8)
    for position, picture in enumerate(images):
        sheet[position // columns, position % columns, :height, :width] = picture.transpose(1, 2, 0)
    joined = sheet.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), channels)
    cropped: np.ndarray = joined[:-gap, :-gap]
    return cropped


def _pixels(images: np.ndarray) -> np.ndarray:
    """Return images as uint8; floats are scaled to 0..255 over the batch, and non-finite ones count as 0."""
    if images.dtype == np.uint8:
        return images
    images = np.nan_to_num(images.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = images.min(), images.max()
    stretched: np.ndarray = (images - low) * (255 / max(high - low, 1e-12))
    return stretched.round().astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    """Encode an image (height, width, 3 or 1) uint8 as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()
