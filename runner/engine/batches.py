"""Batches on the device; their order and their augmentation are functions of (seed, step), so nothing here is state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from runner.engine.contracts import Augment, Draws, Preprocess, Split
from runner.engine.randomness import generator, order


class TrainBatches:
    """The training split as an endless, repeatable sequence of augmented and preprocessed batches.

    `batch` examples go into one optimizer step; the last step of an epoch takes what is left.
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
    ) -> None:
        self.split, self.batch, self.seed, self.device = split, batch, seed, device
        self.augments, self.preprocess = augments, preprocess
        self.steps_per_epoch = math.ceil(len(split.labels) / batch)

    def stream(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (B, C, H, W) float32, labels (B,) int64) for the steps from `start` up to before `stop`."""
        for epoch in range(start // self.steps_per_epoch, math.ceil(stop / self.steps_per_epoch)):
            first = epoch * self.steps_per_epoch
            visits = order(self.seed, epoch, len(self.split.labels))
            tables = self.tables(epoch)
            for step in range(max(start, first), min(stop, first + self.steps_per_epoch)):
                place = (step - first) * self.batch
                yield self.fetch(visits[place : place + self.batch], tables, epoch)

    def tables(self, epoch: int) -> list[Tensor]:
        """Return each augmentation's uniform numbers of an epoch, (N, k): row i belongs to example i."""
        shapes = [(len(self.split.labels), augment.uniforms) for augment in self.augments]
        keys = [epoch if augment.per_epoch else -1 for augment in self.augments]
        return [
            torch.rand(shape, generator=generator(self.seed, "augment", key, position))
            for position, (shape, key) in enumerate(zip(shapes, keys, strict=True))
        ]

    def fetch(self, index: Tensor, tables: Sequence[Tensor], epoch: int) -> tuple[Tensor, Tensor]:
        """Return the augmented, preprocessed images and the labels of the examples at `index`."""
        images = self.split.fetch(index).to(self.device, non_blocking=True)
        for augment, table in zip(self.augments, tables, strict=True):
            draws = Draws(table[index].to(self.device, non_blocking=True), epoch)
            images = augment.apply(images, draws)
        labels = self.split.labels[index].to(self.device, non_blocking=True)
        return self.preprocess(images), labels


class EvalBatches:
    """A split, or a fixed part of it, in order: preprocessed, never augmented."""

    def __init__(
        self, split: Split, *, batch: int, preprocess: Preprocess, device: torch.device, index: Tensor | None = None
    ) -> None:
        self.split, self.batch, self.preprocess, self.device = split, batch, preprocess, device
        self.index = torch.arange(len(split.labels)) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.split(self.index, self.batch):
            images = self.split.fetch(index).to(self.device, non_blocking=True)
            yield self.preprocess(images), self.split.labels[index].to(self.device, non_blocking=True)
