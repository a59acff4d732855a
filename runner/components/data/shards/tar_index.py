"""The examples of tar files, kept in the user's cache by the state of each file, so that headers are read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.components.data.shards.tar_samples import LabelMember, Samples, first_label, read_samples
from runner.engine.file_digests import cache_home, is_settled, state_of, write_cache
from runner.engine.world import cores
from runner.user_paths import absolute, full

# Raise it when the contents of an index change
_VERSION = 1
_SEAL = 32


@dataclass(frozen=True)
class TarIndex:
    """The examples of one tar file, in their order: names and labels as text, places and sizes of the images (N,).

    `others` counts the members that are neither images nor labels, by their ends.
    """

    names: list[str]
    labels: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    others: Counter[str]


def read_indexes(paths: Sequence[Path], label: LabelMember, key: str) -> list[TarIndex]:
    """Return the examples of each tar file; `auto` becomes the member that the first example has.

    Raises:
        DataError: The first of the files that is damaged, or lacks a label.
    """
    chosen = first_label(paths[0]) if label == "auto" else label
    with ThreadPoolExecutor(min(8, cores())) as pool:
        return list(pool.map(lambda path: _index(path, chosen, key), paths))


def _index(path: Path, label: LabelMember, key: str) -> TarIndex:
    """Return the examples of one tar file, from the cache if the file did not change."""
    try:
        status = os.stat(full(path))  # noqa: PTH116
    except (OSError, ValueError):
        status = None
    place = None
    if status is not None and is_settled(status, time.time_ns()):
        words = repr((_VERSION, label, key if label == "json" else None)).encode()
        named = hashlib.blake2b(words + state_of(absolute(path), status), digest_size=16).hexdigest()
        place = cache_home() / f"{named}.tar"
        if (kept := _read(place)) is not None:
            return kept
    found = _made(read_samples(path, label, key))
    if place is not None:
        write_cache(place, _packed(found))
    return found


def _made(samples: Samples) -> TarIndex:
    """Return examples with their places as arrays."""
    offsets, sizes = (np.array(numbers, np.int64) for numbers in (samples.offsets, samples.sizes))
    return TarIndex(samples.names, samples.labels, offsets, sizes, samples.others)


def _packed(index: TarIndex) -> bytes:
    """Return an index as bytes: a checksum, the length of the words, the words as JSON, and two arrays."""
    words = json.dumps([index.names, index.labels, index.others]).encode()
    body = len(words).to_bytes(8) + words + index.offsets.tobytes() + index.sizes.tobytes()
    return hashlib.sha256(body).digest() + body


def _read(place: Path) -> TarIndex | None:
    """Return the index that was kept, None if there is none or it is damaged."""
    try:
        data = Path(full(place)).read_bytes()
        # The time of the last use decides when the file is removed
        os.utime(full(place))
    except OSError:
        return None
    body = data[_SEAL:]
    if hashlib.sha256(body).digest() != data[:_SEAL]:
        return None
    end = 8 + int.from_bytes(body[:8])
    names, labels, others = json.loads(body[8:end])
    offsets, sizes = np.frombuffer(body[end:], np.int64).reshape(2, -1)
    return TarIndex(names, labels, offsets, sizes, Counter(others))
