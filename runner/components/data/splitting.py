"""The fixed choice of which examples validate."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from runner.engine.randomness import keys


def ranks(names: Iterable[int | str]) -> Tensor:
    """Return a number for each example, (N,) int64, that depends on its name only: on no seed and no neighbour."""
    return keys(0, "split", each=names)


def set_aside(labels: Tensor, rank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the positions of `count` examples, every class in proportion, and of all others; both ascending.

    From each class those of the lowest rank are taken, but never all; what rounding owes one class goes to the next.
    """
    aside = torch.zeros(len(labels), dtype=torch.bool)
    owed = 0.0
    for members in torch.split(labels.argsort(stable=True), labels.bincount().tolist()):
        owed += count * len(members) / len(labels)
        share = max(0, min(round(owed), len(members) - 1))
        owed -= share
        aside[members[rank[members].argsort()[:share]]] = True
    return aside.nonzero().flatten(), (~aside).nonzero().flatten()
