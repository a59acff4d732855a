"""The images of task=preview: a few training examples, augmented and mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from runner.assemble import Experiment
from runner.engine.batches import StepExamples
from runner.engine.contracts import Augment
from runner.engine.figures.preview import ImageRow
from runner.engine.loading import fetch
from runner.engine.randomness import epoch_order
from runner.tasks.job import Job

# Steps that are searched for mixed images.
_MAX_STEPS = 50
# Rows of mixed images.
_MIXED_ROWS = 2
# Mean weight of the first label above which a batch counts as hardly mixed.
_HARDLY_MIXED = 0.9


def image_rows(job: Job, experiment: Experiment, examples: int) -> Iterator[ImageRow]:
    """Yield rows as in the first epoch: originals, each augmentation alone, all augmentations, mixed images."""
    labels = experiment.batches.split.labels
    index = choose_examples(epoch_order(experiment.recipe.seed, 0, len(labels)), labels, examples)
    bare = [None] * len(index)
    yield ImageRow("original", _to_uint8(_augment(experiment, [], index)), labels[index].tolist())
    for name, augment in experiment.augmentations.items():
        yield ImageRow(name.replace("_", " "), _to_uint8(_augment(experiment, [augment], index)), bare)
    together = _augment(experiment, experiment.batches.augments, index)
    if len(experiment.augmentations) > 1:
        yield ImageRow("all, in order", _to_uint8(together), bare)
    yield from _mixed_rows(job, experiment, together, labels[index].to(experiment.device))


def choose_examples(visits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return `count` examples in the order of their visits: one of each class, then a second one, and so on."""
    seen: dict[int, int] = {}
    ranked = []
    for position, label in enumerate(labels[visits].tolist()):
        seen[label] = seen.get(label, -1) + 1
        ranked.append((seen[label], position))
    first = [position for _, position in sorted(ranked)[:count]]
    return visits[torch.tensor(first)]


def _augment(experiment: Experiment, augments: Sequence[Augment], index: Tensor) -> Tensor:
    """Return the images at `index`, augmented as in the first epoch: (n, C, H, W) float32 in 0..255."""
    batches = experiment.batches.with_augments(augments)
    place = index.to(batches.split_device)
    rows = place % batches.examples_per_epoch
    chosen = StepExamples(0, place, rows, batches.augment_uniforms(0), batches.crop_uniforms(0))
    images = fetch(batches.split, *chosen.request()).to(batches.device)
    return batches.augment(images, chosen).float()


def _mixed_rows(job: Job, experiment: Experiment, images: Tensor, labels: Tensor) -> Iterator[ImageRow]:
    """Yield the images as two of the first steps would mix them, with the weights of their labels.

    Steps that hardly mix, as most of mixup's, are shown only if there are no others.
    """
    found = []
    for step in range(_MAX_STEPS):
        mixed, soft = experiment.recipe.mix(images, labels, step)
        kept = float(soft.amax(1).mean()) if soft.ndim == 2 else 1.0
        if kept < 1:
            found.append((kept > _HARDLY_MIXED, step, _to_uint8(mixed), soft.tolist()))
    for _, step, pictures, weights in sorted(found, key=lambda each: each[:2])[:_MIXED_ROWS]:
        name = job.config["mix"]["name"].replace("_", " ")
        yield ImageRow(f"{name}\nstep {step + 1}", pictures, weights)


def _to_uint8(images: Tensor) -> np.ndarray:
    """Round images to uint8 on the host."""
    pictures: np.ndarray = images.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pictures
