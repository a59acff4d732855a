"""The order of epochs that keeps to shards: which shard each training example is in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ShardOrder:
    """An order of epochs that is friendly to disks: examples of `window` shards at a time, mixed.

    `shards` (N,) int64 has the number of the shard that each training example is in.
    """

    shards: Tensor
    window: int
