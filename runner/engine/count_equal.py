"""Count validation examples that equal a training example, exactly, for splits that are in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from runner.engine.contracts import Images, Split
from runner.engine.equal_examples import EqualExamples

# Words of an example that are compared first, evenly spaced
_WORDS = 64
# Bytes of both splits above which they are not compared: at about 2 GB a second that takes longer than a second
_MOST_BYTES = 2 * 2**30


def count_equal(train: Split, val: Split) -> EqualExamples | None:
    """Return how many validation examples are in the training split, too; None for splits that are not in memory.

    Examples are equal if all their values are, whatever their labels. Splits of other types of values share none.
    """
    if not (isinstance(train, Images) and isinstance(val, Images)) or _bytes(train) + _bytes(val) > _MOST_BYTES:
        return None
    known, asked = _rows(train.pixels), _rows(val.pixels)
    signs = _signs(asked)
    repeated = _contents(asked, _repeated(signs))
    return EqualExamples(
        val_in_train=_shared(known, asked, signs) if train.pixels.dtype == val.pixels.dtype else 0,
        within_val=len(repeated) - len(set(repeated)),
        val=len(asked),
        train=len(known),
    )


def _bytes(split: Images) -> int:
    """Return the bytes of the pixels of a split."""
    return split.pixels.numel() * split.pixels.element_size()


def _rows(pixels: Tensor) -> NDArray[np.uint8]:
    """Return the bytes (N, b) of examples; zeros have one form."""
    # -0.0 equals 0.0
    values = pixels.detach().cpu() + 0.0 if pixels.is_floating_point() else pixels.detach().cpu()
    rows = values.flatten(1).contiguous().numpy()
    return rows.view(np.uint8).reshape(len(rows), -1)


def _signs(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a number (N,) per example; equal examples have the same, and few others do."""
    width = rows.shape[1]
    size = next(size for size in (8, 4, 2, 1) if width % size == 0)
    words = rows.view(f"u{size}")[:, :: max(1, width // size // _WORDS)]
    weights = np.random.default_rng(0).integers(1, 2**63, words.shape[1], dtype=np.uint64)
    signs: NDArray[np.uint64] = (words.astype(np.uint64) * weights).sum(1, dtype=np.uint64)
    return signs


def _repeated(signs: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which numbers (N,) are there more than once."""
    _, place, counts = np.unique(signs, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = (counts > 1)[place]
    return found


def _shared(known: NDArray[np.uint8], asked: NDArray[np.uint8], signs: NDArray[np.uint64]) -> int:
    """Return how many of the asked examples are among the known ones; those with the same number are compared."""
    if known.shape[1] != asked.shape[1]:
        return 0
    others = _signs(known)
    there = set(_contents(known, np.isin(others, signs)))
    return sum(content in there for content in _contents(asked, np.isin(signs, others)))


def _contents(rows: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> list[bytes]:
    """Return the bytes of the chosen examples."""
    return [row.tobytes() for row in rows[chosen]]
