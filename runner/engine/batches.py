"""Batches on the device; their order and augmentation are functions of (seed, step), so nothing here is state."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from runner.engine.contracts import Augment, Draws, Images, Placement, Preprocess, Split
from runner.engine.loading import Request, prefetched
from runner.engine.randomness import generator, order
from runner.engine.world import ALONE, World

# Bytes. Preprocessed pixels up to this size are kept if nothing augments them first.
_KEPT_LIMIT = 256 * 2**20
# `placement=auto` uses at most this part of the device's free memory.
_MEMORY_SHARE = 1 / 4


def placed(split: Split, placement: Placement, device: torch.device) -> Split:
    """Return a split with pixels and labels on the device; as it is if it is not in memory or does not fit."""
    if not isinstance(split, Images) or placement in ("host", "disk"):
        return split
    if placement == "auto" and not _fits(split.pixels.nbytes, device):
        return split
    return Images(split.pixels.to(device), split.labels.to(device))


def _fits(size: int, device: torch.device) -> bool:
    """Return True if so many bytes are a small part of the device's free memory, or the device shares the host's."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE


@dataclass(slots=True)
class Visit:
    """The examples of one step, by their index in the split, and the random numbers of their epoch."""

    epoch: int
    index: Tensor
    tables: Sequence[Tensor]
    window: Tensor | None  # (N, k), for a split that crops its images from larger ones

    def request(self) -> Request:
        """Return the request to the split."""
        return self.index, None if self.window is None else self.window.index_select(0, self.index)


class TrainBatches:
    """The training split as an endless, repeatable sequence of augmented and preprocessed batches.

    One optimizer step uses `batch` examples, of which each process of `world` gets its share; the last step of an epoch
    uses the remaining ones.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        seed: int,
        augments: Sequence[Augment],
        preprocess: Preprocess,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.split, self.batch, self.seed, self.device, self.world = split, batch, seed, device, world
        self.augments, self.preprocess = augments, preprocess
        self.home = split.labels.device
        self.steps_per_epoch = math.ceil(len(split.labels) / batch)

    def stream(self, start: int, stop: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B, C, H, W) float32, labels (B,) int64) for the steps from `start` up to before `stop`."""
        visits, ahead = tee(self.visits(start, stop))
        ready = self.ready()
        source = self.split if ready is None else ready
        requests = (visit.request() for visit in ahead)
        with closing(_fetched(source, requests, self.device, stop - start)) as found:
            for visit, images in zip(visits, found, strict=True):
                labels = self.split.labels.index_select(0, visit.index)
                if self.home != self.device:
                    labels = labels.to(self.device, non_blocking=True)
                yield (self.prepared(images, visit) if ready is None else images), labels

    def visits(self, start: int, stop: int) -> Iterator[Visit]:
        """Yield the examples of each step."""
        for epoch in range(start // self.steps_per_epoch, math.ceil(stop / self.steps_per_epoch)):
            first = epoch * self.steps_per_epoch
            steps = torch.split(order(self.seed, epoch, len(self.split.labels)).to(self.home), self.batch)
            tables, window = self.tables(epoch), self.window(epoch)
            for index in steps[max(0, start - first) : stop - first]:
                yield Visit(epoch, self.world.slice(index), tables, window)

    def tables(self, epoch: int) -> list[Tensor]:
        """Return each augmentation's uniform numbers of an epoch, (N, k): row i belongs to example i."""
        shapes = [(len(self.split.labels), augment.uniforms) for augment in self.augments]
        keys = [epoch if augment.per_epoch else -1 for augment in self.augments]
        return [
            torch.rand(shape, generator=generator(self.seed, "augment", key, position)).to(self.home)
            for position, (shape, key) in enumerate(zip(shapes, keys, strict=True))
        ]

    def window(self, epoch: int) -> Tensor | None:
        """Return the uniform numbers (N, k) by which a split crops its images in an epoch; None if it does not crop."""
        count = getattr(self.split, "uniforms", 0)
        draws = generator(self.seed, "window", epoch)
        return torch.rand((len(self.split.labels), count), generator=draws) if count else None

    def with_augments(self, augments: Sequence[Augment]) -> TrainBatches:
        """Return these batches with other augmentations."""
        found = copy(self)
        found.augments = augments
        return found

    def prepared(self, images: Tensor, visit: Visit) -> Tensor:
        """Return raw images augmented and preprocessed."""
        return self.preprocess(self.augmented(images, visit))

    def augmented(self, images: Tensor, visit: Visit) -> Tensor:
        """Return raw images augmented."""
        for augment, table in zip(self.augments, visit.tables, strict=True):
            uniform = table.index_select(0, visit.index).to(self.device, non_blocking=True)
            images = augment.apply(images, Draws(uniform, visit.epoch))
        return images

    @torch.no_grad()
    def ready(self) -> Images | None:
        """Return the whole split preprocessed, if nothing augments it first and it is small; else None."""
        split = self.split
        if self.augments or not isinstance(split, Images) or self.home != self.device:
            return None
        if split.pixels.numel() * 4 > _KEPT_LIMIT:
            return None
        parts = [self.preprocess(pixels) for pixels in torch.split(split.pixels, self.batch)]
        return Images(torch.cat(parts), split.labels)


class EvalBatches:
    """A split, or a fixed part of it, in order: preprocessed, never augmented.

    Iterating gives this process's share of the examples; the length counts those of all processes.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch: int,
        preprocess: Preprocess,
        device: torch.device,
        index: Tensor | None = None,
        world: World = ALONE,
    ) -> None:
        self.split, self.batch, self.preprocess, self.device, self.world = split, batch, preprocess, device, world
        self.index = torch.arange(len(split.labels)) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        share = self.world.slice(self.index).to(self.split.labels.device)
        # torch.split gives one empty part of an empty share.
        parts = [part for part in torch.split(share, self.batch) if len(part)]
        with closing(_fetched(self.split, [(index, None) for index in parts], self.device, len(parts))) as found:
            for index, images in zip(parts, found, strict=True):
                labels = self.split.labels.index_select(0, index)
                yield self.preprocess(images), labels.to(self.device, non_blocking=True)


def _fetched(
    split: Split, requests: Iterable[Request], device: torch.device, count: int
) -> Generator[Tensor, None, None]:
    """Yield the images of `count` requests on the device: directly if they are stored there, else prefetched."""
    if isinstance(split, Images) and split.labels.device == device:
        return (split.fetch(index) for index, _ in requests)
    return prefetched(split, requests, device, workers=min(getattr(split, "workers", 0), count))
