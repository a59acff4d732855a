"""A few of many values."""

from __future__ import annotations

import math

from torch import Tensor


def sample(tensor: Tensor, count: int) -> Tensor:
    """Return a copy of at most `count` values in a row, evenly spread.

    The stride shares no factor with the number of values, so that it does not keep to one column of a matrix.
    """
    size = tensor.numel()
    stride = -(-size // count)
    while stride > 1 and math.gcd(stride, size) > 1:
        stride += 1
    return tensor.detach().reshape(-1)[::stride].clone()
