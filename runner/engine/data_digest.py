"""The fingerprint of a data set that says nothing about itself: digests of the labels and pixels of its splits."""

from __future__ import annotations

import hashlib

import torch

from runner.engine.contracts import Data, Images, Split
from runner.engine.fingerprint import Part, counts_of, digest

# Examples that are read at once
_CHUNK = 4096
# Examples of a split on disk that are read, evenly spaced: reading all of them may take hours
_MOST_STREAMED = 4096


def data_parts(data: Data) -> dict[str, Part]:
    """Return the parts of the training and the validation split; the test split stays closed."""
    return {name: _part(split, data) for name, split in (("train", data.train), ("val", data.val))}


def split_counts(data: Data) -> dict[str, tuple[int, ...]]:
    """Return the number of examples of each class, in the splits that are open."""
    splits = {"train": data.train, "val": data.val}
    return {name: counts_of(split.labels.tolist(), len(data.classes)) for name, split in splits.items()}


def _part(split: Split, data: Data) -> Part:
    """Return the part of one split."""
    labels = split.labels.detach().cpu().contiguous()
    form = repr((tuple(data.classes), tuple(data.shape), str(labels.dtype), tuple(labels.shape)))
    return Part(
        listing=digest([form, labels.numpy().tobytes()]),
        content=_pixel_digest(split),
        counts=counts_of(labels.tolist(), len(data.classes)),
    )


def _pixel_digest(split: Split) -> str:
    """Return the digest of the pixels: of all that lie in memory, of evenly spaced ones of those that do not."""
    count = len(split.labels)
    many = count > _MOST_STREAMED and not isinstance(split, Images)
    places = torch.linspace(0, count - 1, _MOST_STREAMED, dtype=torch.float64) if many else torch.arange(count)
    index = places.round().long()
    found = hashlib.sha256()
    for start in range(0, len(index), _CHUNK):
        pixels = split.fetch(index[start : start + _CHUNK]).detach().cpu().contiguous()
        found.update(repr((str(pixels.dtype), tuple(pixels.shape))).encode())
        found.update(pixels.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]
