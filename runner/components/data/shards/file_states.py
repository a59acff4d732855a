"""The state of the files that hold images: it changes with their bytes, and no byte is read for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from runner.engine.file_digests import state_of
from runner.user_paths import full


def state_of_images(files: Iterable[str], *numbers: NDArray[np.int64]) -> bytes:
    """Return the state of files, and of the numbers that say where in them the images are."""
    digest = hashlib.blake2b(digest_size=32)
    for place, file in enumerate(files):
        try:
            digest.update(b"%d " % place + state_of(file, os.stat(full(file))))  # noqa: PTH116
        except OSError:
            digest.update(b"%d cannot be looked at" % place)
    for each in numbers:
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.digest()
