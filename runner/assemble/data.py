"""Data as batches: for training, for validation, and for the one read of the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from runner.components.augment.warp import fuse_geometric
from runner.engine.batches import EvalBatches, TrainBatches, place_split
from runner.engine.contracts import Augment, Data, Preprocess
from runner.engine.randomness import epoch_order
from runner.engine.sampling import SAMPLERS, Repeated, Sampler
from runner.engine.world import ALONE, World
from runner.errors import ConfigError, DataError
from runner.registry import Config, build_many
from runner.settings import Settings

# The smallest batch for evaluation, in examples.
_MIN_EVAL_BATCH = 256


def augmentations(config: Config, data: Data) -> dict[str, Augment]:
    """Return the augmentations by name, in their order; raises ConfigError for images of 1x1 pixel."""
    if config["augment"] and data.shape[1:] == (1, 1):
        raise ConfigError("augment: points (images of 1x1 pixel) have no pixels to move or cover; choose augment=[]")
    return dict(zip(config["augment"], build_many("augment", config, shape=data.shape), strict=True))


def train_batches(
    settings: Settings,
    data: Data,
    augments: Mapping[str, Augment],
    preprocess: Preprocess,
    device: torch.device,
    world: World,
) -> TrainBatches:
    """Return the training split as augmented batches, one per optimizer step."""
    return TrainBatches(
        place_split(data.train, data.placement, device),
        batch=data.batch_size * settings.accumulate,
        seed=settings.seed,
        augments=fuse_geometric(list(augments.values())),
        preprocess=preprocess,
        device=device,
        world=world,
        sampler=_sampler(settings, data, list(augments.values())),
        parts=settings.accumulate,
    )


def _sampler(settings: Settings, data: Data, augments: Sequence[Augment]) -> Sampler:
    """Return what draws the examples of an epoch; raises ConfigError for repeats that do not fit or are all equal."""
    sampler, times = SAMPLERS[data.sampling](data.train.labels), settings.augment_repeats
    if times == 1:
        return sampler
    batch = data.batch_size * settings.accumulate
    if batch % times:
        raise ConfigError(f"augment_repeats: got {times}, must divide the {batch} examples of a step")
    if times > sampler.length:
        raise ConfigError(f"augment_repeats: got {times}, must be at most the {sampler.length} training examples")
    if not (getattr(data.train, "uniforms", 0) or any(part.uniforms and part.per_epoch for part in augments)):
        raise ConfigError(
            f"augment_repeats: got {times} without a random augmentation, so all copies of an image would be equal; "
            "choose augment=[crop,hflip]"
        )
    return Repeated(sampler, times)


def validation_batches(
    data: Data, train: TrainBatches, preprocess: Preprocess, device: torch.device
) -> dict[str, EvalBatches]:
    """Return the validation split, and as many training examples, not augmented, for comparison."""
    make = partial(EvalBatches, batch=eval_batch(data.batch_size), preprocess=preprocess, device=device)
    val = place_split(data.val, data.placement, device)
    return {
        "train_eval": make(train.split, index=_compared(data), world=train.world),
        "val": make(val, world=train.world),
    }


def split_batches(data: Data, split: str, preprocess: Preprocess, device: torch.device) -> EvalBatches | None:
    """Return a split to score (train, val or test); of the training split as many examples as validation has.

    None if the data have no such split.
    """
    if split == "test":
        opened = test_batches(data, preprocess, device, ALONE)
        return opened() if opened else None
    examples = place_split(data.train if split == "train" else data.val, data.placement, device)
    index = _compared(data) if split == "train" else None
    return EvalBatches(examples, batch=eval_batch(data.batch_size), preprocess=preprocess, device=device, index=index)


def eval_batch(batch_size: int) -> int:
    """Return the examples of a batch in evaluation, for the batch size of training."""
    return max(batch_size, _MIN_EVAL_BATCH)


def _compared(data: Data) -> torch.Tensor:
    """Return the positions of the training examples that are scored beside validation."""
    size = min(len(data.train.labels), len(data.val.labels))
    return epoch_order(0, 0, len(data.train.labels))[:size].sort().values


def test_batches(
    data: Data, preprocess: Preprocess, device: torch.device, world: World
) -> Callable[[], EvalBatches] | None:
    """Return a function that opens the test split, or None if the data have none."""
    opened = data.test
    if opened is None:
        return None
    batch = eval_batch(data.batch_size)
    return lambda: EvalBatches(opened(), batch=batch, preprocess=preprocess, device=device, world=world)


def check_labels(data: Data) -> None:
    """Raise DataError for an empty split or a label outside the classes, on which the loss would fail."""
    for split, labels in {"training": data.train.labels, "validation": data.val.labels}.items():
        if len(labels) == 0:
            raise DataError(f"data: the {split} split is empty")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(data.classes):
            wrong = low if low < 0 else high
            raise DataError(f"data: the {split} split has label {wrong}, must be 0 to {len(data.classes) - 1}")
