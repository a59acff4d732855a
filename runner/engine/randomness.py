"""Randomness as a function, not a state: every draw comes from a key made of the seed and what it is for."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def key(seed: int, *words: int | str) -> int:
    """Return 63 bits that depend on the seed and on every word, the same on every machine."""
    text = "/".join(map(str, (seed, *words)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *words: int | str) -> torch.Generator:
    """Return a CPU generator of torch at the start of its stream for this key."""
    return torch.Generator().manual_seed(key(seed, *words))


def order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order (count,) int64 in which an epoch visits the examples."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def numpy_generator(random_key: int) -> np.random.Generator:
    """Return a counter-based numpy generator for a key (for distributions that torch draws without a generator)."""
    return np.random.Generator(np.random.Philox(random_key))
