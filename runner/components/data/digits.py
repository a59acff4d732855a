"""Handwritten digits that come with scikit-learn: small, real, and there without a download."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from runner.components.data.splitting import ranks, set_aside
from runner.engine.contracts import Data, Images, InMemory
from runner.errors import DataError
from runner.registry import register
from runner.roles import Aspect, Role
from runner.schema import PositiveInt

FILE = "datasets/data/digits.csv.gz"
LARGEST = 16  # the file's values are 0..16


@register("data")
def digits(
    *, batch_size: Annotated[PositiveInt, Aspect.TRAINING], placement: Annotated[InMemory, Role.EXECUTION]
) -> Data:
    """Return 1,797 images (1, 8, 8) of handwritten digits, stretched to 0..255: 1,200 to train, 297 val, 300 test.

    The splits are fixed and stratified. scikit-learn's file is read by itself: importing the package takes seconds.
    Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), its test part.
    """
    everything = read(find())
    rank = ranks(range(len(everything.labels)))
    test, rest = set_aside(everything.labels, rank, 300)
    val, train = set_aside(everything.labels[rest], rank[rest], 297)
    return Data(
        train=everything.part(rest[train]),
        val=everything.part(rest[val]),
        test=lambda: everything.part(test),
        shape=(1, 8, 8),
        classes=tuple("0123456789"),
        batch_size=batch_size,
        placement=placement,
    )


def find() -> Path:
    """Return the path of the file inside the installed scikit-learn."""
    package = find_spec("sklearn")
    path = Path((package.submodule_search_locations or [""])[0]) / FILE if package else None
    if path is None or not path.is_file():
        raise DataError(f"data=digits: {path or 'scikit-learn'} is missing; install scikit-learn, whose file it reads")
    return path


def read(path: Path) -> Images:
    """Return the images of the CSV file: 64 values and the label in each row."""
    table = np.array(gzip.decompress(path.read_bytes()).replace(b"\n", b",").split(b",")[:-1], dtype=np.int64)
    rows = torch.from_numpy(table).view(-1, 65)
    pixels = (rows[:, :64] * 255 + LARGEST // 2) // LARGEST  # x * 255 / 16, rounded
    return Images(pixels.to(torch.uint8).view(-1, 1, 8, 8), rows[:, 64].clone())
