"""Prefetch the data files of a run before torch is imported: the disk reads while the processor imports."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.engine.read_ahead import read_ahead

# Files below `data.root` that opening the training split reads, in torchvision's layout.
FILES = {
    "cifar10": "cifar-10-batches-py/*",
    "cifar100": "cifar-100-python/*",
    "mnist": "MNIST/raw/train-*-ubyte",
    "fashion_mnist": "FashionMNIST/raw/train-*-ubyte",
    "svhn": "train_32x32.mat",
}


def prefetch(config: dict[str, Any]) -> None:
    """Start reading the files of the configured data set, if they are known without opening it.

    A thread makes the requests, without the GIL: for 180 MB they take 40 ms.
    """
    data = config.get("data") or {}
    if pattern := FILES.get(data.get("name", "")):
        folder = Path(data["root"]).expanduser()
        threading.Thread(target=read_matching, args=[folder, pattern], daemon=True).start()


def read_matching(folder: Path, pattern: str) -> None:
    """Start reading the files of a folder that match a pattern; the data set reports what is wrong with them."""
    with suppress(OSError, ValueError):
        read_ahead(folder.glob(pattern))
