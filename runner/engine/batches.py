"""Batches on the device. Order and augmentation depend only on (seed, step), so checkpoints need no state of them."""

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
from runner.engine.randomness import generator
from runner.engine.sampling import Sampler, Shuffle
from runner.engine.world import ALONE, World

# Bytes. A preprocessed split up to this size stays on the device if it is not augmented.
_CACHE_LIMIT = 256 * 2**20
# `placement=auto` uses at most this part of the device's free memory.
_MEMORY_SHARE = 1 / 4


def place_split(split: Split, placement: Placement, device: torch.device) -> Split:
    """Move a split to the device; return it unchanged if it is not in memory, must stay on the host or does not fit."""
    if not isinstance(split, Images) or placement in ("host", "disk"):
        return split
    if placement == "auto" and not _fits(split.pixels.nbytes, device):
        return split
    return Images(split.pixels.to(device), split.labels.to(device))


def _fits(size: int, device: torch.device) -> bool:
    """Return True if `size` bytes are at most `_MEMORY_SHARE` of the free memory of a GPU; always True elsewhere."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE


@dataclass(slots=True)
class StepExamples:
    """The examples of one step and the random numbers of their epoch, which draws L of the N examples of the split.

    Attributes:
        epoch: The epoch, from 0.
        index: The positions (B,) int64 of the examples in the split.
        rows: The rows (B,) int64 of their random numbers in tables of L rows.
        augment_uniforms: For each augmentation uniform random numbers (L, k), or (N, k) without `per_epoch`.
        crop_uniforms: Uniform random numbers (L, k) for a split that crops its images; None for any other.
    """

    epoch: int
    index: Tensor
    rows: Tensor
    augment_uniforms: Sequence[Tensor]
    crop_uniforms: Tensor | None

    def request(self) -> Request:
        """Return the arguments of the split's `fetch`."""
        return self.index, None if self.crop_uniforms is None else self.crop_uniforms.index_select(0, self.rows)


class TrainBatches:
    """The training split as an endless, reproducible sequence of augmented and preprocessed batches.

    One optimizer step uses `batch` examples; the last step of an epoch uses the remaining ones. Each process of `world`
    gets its share of them. An epoch is as long as the sampler's: `examples_per_epoch` draws in `steps_per_epoch` steps.

    Args:
        split: The training split.
        batch: The number of examples of a step, over all processes.
        seed: The seed of order and augmentation.
        augments: The augmentations, applied in this order.
        preprocess: Turns raw images into the model's input.
        device: Where the batches are.
        world: The processes that train together.
        sampler: Draws the examples of an epoch; each one once by default.
        parts: The micro-batches of a step; each process gets its share of each.
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
        sampler: Sampler | None = None,
        parts: int = 1,
    ) -> None:
        self._parts = parts
        self.split, self.batch, self.seed, self.device, self.world = split, batch, seed, device, world
        self.augments, self.preprocess = augments, preprocess
        self.split_device = split.labels.device
        self.sampler = sampler or Shuffle(split.labels)
        self.examples_per_epoch = self.sampler.length
        self.steps_per_epoch = math.ceil(self.examples_per_epoch / batch)

    def stream(self, start: int, stop: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (images (B, C, H, W) float32, labels (B,) int64) for the steps from `start` up to before `stop`."""
        steps, prefetched_steps = tee(self.step_examples(start, stop))
        preprocessed = self.preprocessed_split()
        source = self.split if preprocessed is None else preprocessed
        requests = (examples.request() for examples in prefetched_steps)
        with closing(_fetch_all(source, requests, self.device, stop - start)) as batches:
            for examples, images in zip(steps, batches, strict=True):
                labels = self.split.labels.index_select(0, examples.index)
                if self.split_device != self.device:
                    labels = labels.to(self.device, non_blocking=True)
                yield (self.augment_and_preprocess(images, examples) if preprocessed is None else images), labels

    def step_examples(self, start: int, stop: int) -> Iterator[StepExamples]:
        """Yield the examples of the steps from `start` up to before `stop`."""
        for epoch in range(start // self.steps_per_epoch, math.ceil(stop / self.steps_per_epoch)):
            first = epoch * self.steps_per_epoch
            drawn = self.sampler.draw(self.seed, epoch)
            parts = (torch.split(each.to(self.split_device), self.batch) for each in drawn)
            augment_uniforms, crop_uniforms = self.augment_uniforms(epoch), self.crop_uniforms(epoch)
            for index, rows in list(zip(*parts, strict=True))[max(0, start - first) : stop - first]:
                yield StepExamples(epoch, self._own(index), self._own(rows), augment_uniforms, crop_uniforms)

    def size_of(self, step: int) -> int:
        """Return the examples of all processes in a step; 0 is the first."""
        place = step % self.steps_per_epoch
        return min(self.batch, self.examples_per_epoch - place * self.batch)

    def _own(self, index: Tensor) -> Tensor:
        """Return this process's share of the rows (B,) of a step."""
        if self._parts == 1:
            return self.world.slice(index)
        return torch.cat([self.world.slice(part) for part in index.chunk(self._parts)])

    def augment_uniforms(self, epoch: int) -> list[Tensor]:
        """Return for each augmentation the uniform random numbers of an epoch: a row per draw, or per example.

        An augmentation without `per_epoch` has a row (N, k) for each example of the split.
        """
        drawn, examples = self.examples_per_epoch, len(self.split.labels)
        shapes = [(drawn if augment.per_epoch else examples, augment.uniforms) for augment in self.augments]
        keys = [epoch if augment.per_epoch else -1 for augment in self.augments]
        return [
            torch.rand(shape, generator=generator(self.seed, "augment", key, position)).to(self.split_device)
            for position, (shape, key) in enumerate(zip(shapes, keys, strict=True))
        ]

    def crop_uniforms(self, epoch: int) -> Tensor | None:
        """Return the uniform random numbers (L, k) of an epoch for a split that crops its images, else None."""
        count = getattr(self.split, "uniforms", 0)
        source = generator(self.seed, "window", epoch)
        return torch.rand((self.examples_per_epoch, count), generator=source) if count else None

    def with_augments(self, augments: Sequence[Augment]) -> TrainBatches:
        """Return these batches with other augmentations."""
        found = copy(self)
        found.augments = augments
        return found

    def of_all(self) -> TrainBatches:
        """Return the same batches with the examples of all processes."""
        found = copy(self)
        found.world = ALONE
        return found

    def augment_and_preprocess(self, images: Tensor, examples: StepExamples) -> Tensor:
        """Return the raw images (B, C, H, W) of a step augmented and preprocessed."""
        return self.preprocess(self.augment(images, examples))

    def augment(self, images: Tensor, examples: StepExamples) -> Tensor:
        """Return the raw images (B, C, H, W) of a step augmented."""
        for augment, uniforms in zip(self.augments, examples.augment_uniforms, strict=True):
            rows = examples.rows if augment.per_epoch else examples.index
            uniform = uniforms.index_select(0, rows).to(self.device, non_blocking=True)
            images = augment.apply(images, Draws(uniform, examples.epoch))
        return images

    @torch.no_grad()
    def preprocessed_split(self) -> Images | None:
        """Return the whole split preprocessed; None if it is augmented, large or not on the device."""
        split = self.split
        if self.augments or not isinstance(split, Images) or self.split_device != self.device:
            return None
        if split.pixels.numel() * 4 > _CACHE_LIMIT:
            return None
        parts = [self.preprocess(pixels) for pixels in torch.split(split.pixels, self.batch)]
        return Images(torch.cat(parts), split.labels)


class EvalBatches:
    """The preprocessed batches of a split, or of a fixed part of it, in order; without augmentation.

    Iteration yields this process's share of the examples. `len` counts the examples of all processes.

    Args:
        split: The split.
        batch: The number of examples of a batch.
        preprocess: Turns raw images into the model's input.
        device: Where the batches are.
        index: The positions (M,) int64 of the examples to use; all by default.
        world: The processes that share the examples.
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
        # torch.split of an empty tensor returns one empty part.
        parts = [part for part in torch.split(share, self.batch) if len(part)]
        with closing(_fetch_all(self.split, [(index, None) for index in parts], self.device, len(parts))) as batches:
            for index, images in zip(parts, batches, strict=True):
                labels = self.split.labels.index_select(0, index)
                yield self.preprocess(images), labels.to(self.device, non_blocking=True)


def _fetch_all(
    split: Split, requests: Iterable[Request], device: torch.device, count: int
) -> Generator[Tensor, None, None]:
    """Yield the images of `count` requests on the device; prefetch them unless the split is on the device."""
    if isinstance(split, Images) and split.labels.device == device:
        return (split.fetch(index) for index, _ in requests)
    return prefetched(split, requests, device, workers=min(getattr(split, "workers", 0), count))
