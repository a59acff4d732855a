"""Data as batches: for training, for validation, for the one look at the test split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import torch

from runner.assemble.config import Config, many
from runner.components.augment.warp import fuse
from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Data, InMemory, Preprocess
from runner.engine.placement import placed
from runner.engine.randomness import order
from runner.errors import ConfigError, DataError
from runner.registry import build, find, knobs
from runner.settings import Settings

SMALLEST = 256  # examples of a batch that is only evaluated


_kept: dict[str, Data] = {}  # data sets that a process has read for all runs in it


def load(config: Config) -> Data:
    """Return the data set that a config's `data` describes."""
    return _kept.get(repr(config)) or build("data", config)


def keep(config: Config) -> None:
    """Read a data set for all runs in this process that ask for it, if it is one that lies in memory."""
    placement = knobs(find("data", config["name"])).get("placement")
    if InMemory in (placement, *get_args(placement)[:1]):
        _kept[repr(config)] = build("data", config)


def train_batches(
    config: Config, settings: Settings, data: Data, preprocess: Preprocess, device: torch.device
) -> TrainBatches:
    """Return the training split as augmented batches, one per optimizer step.

    Raises ConfigError for augmentations of points.
    """
    if config["augment"] and data.shape[1:] == (1, 1):
        raise ConfigError("augment: points (images of 1x1 pixel) have no pixels to move or cover; choose augment=[]")
    return TrainBatches(
        placed(data.train, data.placement, device),
        batch=data.batch_size * settings.accumulate,
        seed=settings.seed,
        augments=fuse(many("augment", config, shape=data.shape)),
        preprocess=preprocess,
        device=device,
    )


def validation_batches(
    data: Data, train: TrainBatches, preprocess: Preprocess, device: torch.device
) -> dict[str, EvalBatches]:
    """Return the validation split, and as many training examples, clean, to compare it with."""
    size = min(len(data.train.labels), len(data.val.labels))
    some = order(0, 0, len(data.train.labels))[:size].sort().values
    make = partial(EvalBatches, batch=max(data.batch_size, SMALLEST), preprocess=preprocess, device=device)
    val = placed(data.val, data.placement, device)
    return {"train": make(train.split, index=some), "val": make(val)}


def test_batches(data: Data, preprocess: Preprocess, device: torch.device) -> Callable[[], EvalBatches] | None:
    """Return a function that opens the test split, or None where the data have none."""
    opened = data.test
    if opened is None:
        return None
    return lambda: EvalBatches(opened(), batch=max(data.batch_size, SMALLEST), preprocess=preprocess, device=device)


def check_labels(data: Data) -> None:
    """Raise DataError for labels beyond the classes, before they end in the loss."""
    for split, labels in {"training": data.train.labels, "validation": data.val.labels}.items():
        if len(labels) == 0:
            raise DataError(f"data: the {split} split is empty")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(data.classes):
            wrong = low if low < 0 else high
            raise DataError(f"data: the {split} split has label {wrong}, must be 0 to {len(data.classes) - 1}")
