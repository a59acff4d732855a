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

from runner.components.data.splitting import split_order, stratified_split
from runner.engine.contracts import Data, Images, InMemory, Sampling
from runner.engine.data_summary import Found, count_labels
from runner.engine.file_digests import digest_files
from runner.engine.fingerprint import Part, digest, identified_by
from runner.errors import DataError
from runner.registry import register
from runner.roles import Aspect, Role
from runner.schema import PositiveInt

_FILE = "datasets/data/digits.csv.gz"
_SPLITS = ("train", "val", "test")
# Largest value in the file
_MAX_VALUE = 16


def _identity() -> dict[str, Part]:
    """Return what identifies the digits: the file inside scikit-learn, which all splits are parts of."""
    path = _digits_file()
    contents = digest_files(path.parent, [path.name])[1]
    return {split: Part(listing=digest(["digits", split]), content=digest(contents)) for split in _SPLITS}


@register("data")
@identified_by(_identity)
def digits(
    *,
    batch_size: Annotated[PositiveInt, Aspect.TRAINING],
    sampling: Annotated[Sampling, Aspect.TRAINING],
    placement: Annotated[InMemory, Role.EXECUTION],
) -> Data:
    """Load 1,797 handwritten digits (1, 8, 8), scaled to 0..255: 1,200 to train, 297 to validate, 300 to test.

    The splits are fixed and stratified. Only scikit-learn's file is read, because importing the package takes seconds.
    Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), its test part.

    Args:
        batch_size: Images per forward pass, >= 1.
        sampling: Which images an epoch draws: each once (`shuffle`), or every class equally often (`balanced`).
        placement: Where pixels are kept: `device`, `host` or `auto` (the device if they fit).

    Raises:
        DataError: scikit-learn or its file is missing.
    """
    everything = _read_digits(_digits_file())
    rank = split_order(range(len(everything.labels)))
    test, remaining = stratified_split(everything.labels, rank, 300)
    val, train = stratified_split(everything.labels[remaining], rank[remaining], 297)
    return Data(
        train=everything.part(remaining[train]),
        val=everything.part(remaining[val]),
        test=lambda: everything.part(test),
        shape=(1, 8, 8),
        classes=tuple("0123456789"),
        batch_size=batch_size,
        sampling=sampling,
        placement=placement,
        found=_found(everything.labels, {"train": remaining[train], "val": remaining[val], "test": test}),
    )


def _found(labels: Tensor, splits: Mapping[str, Tensor]) -> Found:
    """Return the number of examples per class and split, of the positions in each split."""
    return Found(count_labels(labels, 10), {name: count_labels(labels[at], 10) for name, at in splits.items()})


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
