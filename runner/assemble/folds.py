"""Cross-validation: the training and the validation examples of one fold, from those of a data set together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runner.components.data.splitting import split_order, stratified_folds
from runner.engine.contracts import Data, Images
from runner.engine.data_summary import Found, count_labels
from runner.engine.fingerprint import Fingerprint, digest
from runner.errors import ConfigError, DataError

_NO_TEST = "folds are no independent test, and the test split stays closed"


def with_fold(data: Data, config: Mapping[str, Any]) -> Data:
    """Return the data of the fold that a config names: that fold to validate, all others to train; else all data.

    Raises:
        ConfigError: `fold` is missing or too large, or groups of images would be torn apart.
        DataError: The data are not in memory, or a split would be empty.
    """
    count, fold = config["folds"], config["fold"]
    if count is None:
        return data
    if fold is None or fold > count:
        raise ConfigError(f"fold: got {'null' if fold is None else fold}, must be 1 to {count} with folds={count}")
    everything, places = all_examples(data, config)
    chosen = places == fold - 1
    parts = {"train": (~chosen).nonzero().flatten(), "val": chosen.nonzero().flatten()}
    counts = {name: count_labels(everything.labels[at], len(data.classes)) for name, at in parts.items()}
    total = count_labels(everything.labels, len(data.classes))
    return replace(
        data,
        train=everything.part(parts["train"]),
        val=everything.part(parts["val"]),
        test=None,
        check_test=tuple,
        found=Found(total, counts, {"val": f"fold {fold} of {count}"}, no_test=_NO_TEST),
    )


def all_examples(data: Data, config: Mapping[str, Any]) -> tuple[Images, Tensor]:
    """Return the training examples and the validation examples after them, and the fold (N,) of each, from 0.

    Raises as `with_fold` does.
    """
    if config["data"].get("groups") is not None:
        raise ConfigError("folds: not supported with data.groups, because folds would tear the groups apart")
    train, val = data.train, data.val
    if not (isinstance(train, Images) and isinstance(val, Images)):
        raise DataError("folds: these data are read from the disk; choose data.placement=host, or a smaller data set")
    both = Images(torch.cat([train.pixels, val.pixels]), torch.cat([train.labels, val.labels]))
    if config["folds"] > len(both.labels):
        raise ConfigError(f"folds: got {config['folds']}, must be at most the {len(both.labels)} examples")
    return both, stratified_folds(both.labels, split_order(range(len(both.labels))), config["folds"])


def fingerprint_of_fold(found: Fingerprint, config: Mapping[str, Any], data: Data | None = None) -> Fingerprint:
    """Return the fingerprint of the fold that a config names; with `data` it has the examples of each class.

    Two folds validate on other examples, so that they are other data.
    """
    if config["folds"] is None:
        return found
    words = f"fold {config['fold']} of {config['folds']}"
    splits = {} if data is None else {"train": data.train.labels, "val": data.val.labels}
    parts = {
        name: replace(
            part,
            listing=digest([part.listing, words]),
            counts=tuple(count_labels(splits[name], len(data.classes))) if data and name in splits else None,
        )
        for name, part in found.parts.items()
    }
    return replace(found, parts=parts)
