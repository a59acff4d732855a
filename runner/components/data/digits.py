"""scikit-learn's handwritten digits: small, real and available without a download."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from runner.batch_sizes import BatchSize
from runner.components.data.labels.class_names import chosen_classes
from runner.components.data.splitting import split_order, stratified_sample, stratified_split
from runner.engine.contracts import Data, Images, InMemory, Sampling
from runner.engine.data_summary import Found, count_labels
from runner.engine.file_digests import digest_files
from runner.engine.fingerprint import Part, digest, identified_by
from runner.engine.randomness import keys
from runner.errors import ConfigError, DataError
from runner.registry import register
from runner.roles import Aspect, Role
from runner.schema import NonNegativeInt, PositiveInt

_FILE = "datasets/data/digits.csv.gz"
_SPLITS = ("train", "val", "test")
_CLASSES = tuple("0123456789")
# Largest value in the file
_MAX_VALUE = 16


def _identity(*, classes: list[str | int] | None, limit: int | None, limit_seed: int) -> dict[str, Part]:
    """Return what identifies the digits: the file inside scikit-learn, and which part of it a split is."""
    path = _digits_file()
    contents = digest_files(path.parent, [path.name])[1]
    chosen = [] if classes is None else ["classes", *map(str, classes)]
    limited = [] if limit is None else ["limit", str(limit), str(limit_seed)]
    return {
        split: Part(
            listing=digest(["digits", split, *chosen, *(limited if split == "train" else [])]), content=digest(contents)
        )
        for split in _SPLITS
    }


@register("data")
@identified_by(_identity)
def digits(
    *,
    classes: list[str | int] | None,
    limit: Annotated[PositiveInt | None, Aspect.TRAINING],
    limit_seed: Annotated[NonNegativeInt, Aspect.TRAINING],
    batch_size: Annotated[BatchSize, Aspect.TRAINING],
    sampling: Annotated[Sampling, Aspect.TRAINING],
    placement: Annotated[InMemory, Role.EXECUTION],
) -> Data:
    """Load 1,797 handwritten digits (1, 8, 8), scaled to 0..255: 1,200 to train, 297 to validate, 300 to test.

    The splits are fixed and stratified. Source: UCI (Alpaydin and Kaynak 1998), read from scikit-learn's file.

    Args:
        classes: The digits that are used, in the order of their labels; None for all.
        limit: Number of training images, of each class its share; None for all.
        limit_seed: Seed of the choice that `limit` makes.
        batch_size: Images per forward pass, >= 1.
        sampling: Which images an epoch draws: each once (`shuffle`), or every class equally often (`balanced`).
        placement: Where pixels are kept: `device`, `host` or `auto` (the device if they fit).

    Raises:
        ConfigError, DataError: A class is unknown, there are too few or `limit` is below them, or the file is missing.
    """
    everything = _read_digits(path := _digits_file())
    names = tuple(chosen_classes(_CLASSES, classes, "text", path))
    parts = {split: at[_among(everything.labels[at], names)] for split, at in _splits(everything.labels).items()}
    chosen = Images(everything.pixels, _relabelled(everything.labels, names))
    used = {**parts, "train": _limited(chosen.labels, parts["train"], len(names), limit, limit_seed)}
    return Data(
        train=chosen.part(used["train"]),
        val=chosen.part(parts["val"]),
        test=lambda: chosen.part(parts["test"]),
        shape=(1, 8, 8),
        classes=names,
        batch_size=batch_size,
        sampling=sampling,
        placement=placement,
        found=_found(chosen.labels, parts, used, len(names)),
    )


def _splits(labels: Tensor) -> dict[str, Tensor]:
    """Return the positions of the examples of each split."""
    rank = split_order(range(len(labels)))
    test, remaining = stratified_split(labels, rank, 300)
    val, train = stratified_split(labels[remaining], rank[remaining], 297)
    return {"train": remaining[train], "val": remaining[val], "test": test}


def _among(labels: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return which labels (N,) are those of the chosen digits."""
    return torch.isin(labels, torch.tensor([_CLASSES.index(name) for name in names]))


def _relabelled(labels: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return labels that count the chosen digits in their order; those of others are never read."""
    return torch.tensor([names.index(each) if each in names else 0 for each in _CLASSES])[labels]


def _limited(labels: Tensor, train: Tensor, classes: int, limit: int | None, seed: int) -> Tensor:
    """Return as many of the training positions as `data.limit` says, of each class its share and at least one."""
    if limit is None or limit >= len(train):
        return train
    if limit < classes:
        raise ConfigError(f"data.limit: got {limit}, must be >= {classes}, one image of each class")
    return train[stratified_sample(labels[train], keys(seed, "limit", each=train.tolist()), limit)]


def _found(labels: Tensor, parts: Mapping[str, Tensor], limited: Mapping[str, Tensor], classes: int) -> Found:
    """Return the number of examples per class and split, of the positions in each split before and after the limit."""
    total = torch.cat(list(parts.values()))
    left_out = len(limited["train"]) < len(parts["train"])
    return Found(
        count_labels(labels[total], classes),
        {name: count_labels(labels[at], classes) for name, at in limited.items()},
        remarks={"train": f"of {len(parts['train'])}, data.limit"} if left_out else {},
        among=len(_CLASSES),
    )


def _digits_file() -> Path:
    """Return the path of the file inside the installed scikit-learn."""
    package = find_spec("sklearn")
    path = Path((package.submodule_search_locations or [""])[0]) / _FILE if package else None
    if path is None or not path.is_file():
        raise DataError(f"data=digits: {path or 'scikit-learn'} is missing; install scikit-learn, whose file it reads")
    return path


def _read_digits(path: Path) -> Images:
    """Return the images of the CSV file, which has 64 values and a label per row."""
    table = np.array(gzip.decompress(path.read_bytes()).replace(b"\n", b",").split(b",")[:-1], dtype=np.int64)
    rows = torch.from_numpy(table).view(-1, 65)
    # Round x * 255 / 16 to the nearest integer
    pixels = (rows[:, :64] * 255 + _MAX_VALUE // 2) // _MAX_VALUE
    return Images(pixels.to(torch.uint8).view(-1, 1, 8, 8), rows[:, 64].clone())
