"""Fixed, stratified splits that depend on the examples only, and samples."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import torch
from torch import Tensor

from runner.engine.randomness import keys


def split_order(names: Iterable[int | str]) -> Tensor:
    """Return a pseudo-random number per example, (N,) int64, from its name only, not from seed or neighbors."""
    return keys(0, "split", each=names)


def stratified_split(labels: Tensor, rank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the positions of `count` examples, stratified by class, and of all others; both ascending.

    Each class gives its examples of the lowest rank, but never all. The rounding error of a class is passed to the
    next.
    """
    aside = torch.zeros(len(labels), dtype=torch.bool)
    owed = 0.0
    for members in torch.split(labels.argsort(stable=True), labels.bincount().tolist()):
        owed += count * len(members) / len(labels)
        share = max(0, min(round(owed), len(members) - 1))
        owed -= share
        aside[members[rank[members].argsort()[:share]]] = True
    return aside.nonzero().flatten(), (~aside).nonzero().flatten()


def stratified_sample(labels: Tensor, rank: Tensor, count: int) -> Tensor:
    """Return the positions, ascending, of exactly `count` examples: of each class those of the lowest rank.

    A class gets its share by the largest remainder, and at least one. `count` is at least the number of classes and at
    most that of the examples.
    """
    sizes: list[int] = labels.bincount().tolist()
    shares = [size * count / len(labels) for size in sizes]
    quotas = [max(min(1, size), int(share)) for size, share in zip(sizes, shares, strict=True)]
    missing = count - sum(quotas)
    step = 1 if missing > 0 else -1
    # The class that is furthest from its share comes first
    heap = [(step * (quota - share), i) for i, (quota, share) in enumerate(zip(quotas, shares, strict=True))]
    heapq.heapify(heap)
    while missing:
        _, i = heapq.heappop(heap)
        if 1 <= quotas[i] + step <= sizes[i]:
            quotas[i] += step
            missing -= step
            heapq.heappush(heap, (step * (quotas[i] - shares[i]), i))
    members = torch.split(labels.argsort(stable=True), sizes)
    picked = [each[rank[each].argsort()[:quota]] for each, quota in zip(members, quotas, strict=True)]
    return torch.cat(picked).sort().values


def stratified_folds(labels: Tensor, rank: Tensor, count: int) -> Tensor:
    """Return the fold (N,) int64 of each example, from 0 to `count - 1`.

    The sizes of two folds differ by at most one, and so does what a class has in each. Within a class the rank decides.
    """
    by_rank = rank.argsort()
    order = by_rank[labels[by_rank].argsort(stable=True)]
    folds = torch.empty_like(order)
    folds[order] = torch.arange(len(order)) % count
    return folds
