"""Kinds of values in a split: pixels 0..255 as uint8, or features as floats of any size."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.contracts import Split

# The value of a white pixel
WHITE = 255.0


def white_of(split: Split) -> float:
    """Return the value that becomes 1 where values are scaled: 255 for pixels, 1 for features."""
    return 1.0 if _first(split).is_floating_point() else WHITE


def origin_of(split: Split) -> Tensor:
    """Return the value (1, C, H, W) in float64 that is subtracted before sums of squares: the first of the features.

    The variance of values far from 0 would cancel otherwise, and a constant would have a variance above 0. Sums of
    pixels are exact, and their origin is 0.
    """
    first = _first(split)
    return first.double() if first.is_floating_point() else torch.zeros(first.shape, dtype=torch.float64)


def _first(split: Split) -> Tensor:
    """Return the first example (1, C, H, W)."""
    return split.fetch(torch.zeros(1, dtype=torch.int64))
