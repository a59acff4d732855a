"""What a run will read of its data, asked for before torch is imported: the disk reads while the processor imports."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.engine.read_ahead import read_ahead

FILES = {  # below `data.root`, as torchvision lays them out: what opening the training split reads
    "cifar10": "cifar-10-batches-py/*",
    "cifar100": "cifar-100-python/*",
    "mnist": "MNIST/raw/train-*-ubyte",
    "fashion_mnist": "FashionMNIST/raw/train-*-ubyte",
    "svhn": "train_32x32.mat",
}


def read_data_ahead(config: dict[str, Any]) -> None:
    """Have the files of a config's data read, where it names a data set whose files are known without opening it.

    A thread asks for them: of 180 MB that alone takes 40 ms, without the GIL.
    """
    data = config.get("data") or {}
    if pattern := FILES.get(data.get("name", "")):
        folder = Path(data["root"]).expanduser()
        threading.Thread(target=read_matching, args=[folder, pattern], daemon=True).start()


def read_matching(folder: Path, pattern: str) -> None:
    """Have the files of a folder read whose names match; what is wrong with it, the data set will say."""
    with suppress(OSError, ValueError):
        read_ahead(folder.glob(pattern))
