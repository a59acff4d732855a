"""Equal examples in the training and the validation split, found by the hash of their pixels."""

from __future__ import annotations

import hashlib

import torch

from runner.engine.contracts import Images, Split
from runner.protocol.outcome import Criterion, Level

# Examples of a split that are hashed at most, if they are not in memory
_MOST = 8192
_CHUNK = 4096
# Share of the validation examples above which copies are a leak, and not a flaw of the data set
_LEAK = 0.01


def leak_criterion(train: Split, val: Split) -> Criterion:
    """Return the criterion that no validation example equals a training example.

    Data with few different values have copies within a split, too: where n examples have n^2 p / 2 equal pairs, n m p
    of them equal one of m others.
    """
    first, second = _hashes(train), _hashes(val)
    known = set(first)
    copies = sum(each in known for each in second)
    within = len(second) - len(set(second))
    share, usual = copies / len(second), 2 * within * len(first) / len(second) ** 2
    level = Level.PASS if not copies else Level.FAIL if share > max(_LEAK, 3 * usual) else Level.WARN
    return Criterion(
        name="validation examples in training",
        value=f"{copies} of {len(second)}",
        threshold=f"none; at most {_LEAK:.0%} for a warning",
        level=level,
        why="equal examples in both splits: validation accuracy is too high; leave them out" if copies else "",
        source="hash of the decoded pixels",
    )


def _hashes(split: Split) -> list[bytes]:
    """Return a hash per example, of evenly spaced ones of a large split on disk."""
    count = len(split.labels)
    step = 1 if isinstance(split, Images) else max(1, count // _MOST)
    found: list[bytes] = []
    for index in torch.split(torch.arange(0, count, step), _CHUNK):
        rows = split.fetch(index.to(split.labels.device)).detach().cpu().contiguous().flatten(1)
        found += [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows.numpy()]
    return found
