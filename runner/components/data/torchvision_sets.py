"""Data sets that torchvision downloads and reads, imported without the rest of torchvision."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError

import torch

from runner.batch_sizes import BatchSize
from runner.components.data.download import DOWNLOAD_FOLDER, OpenDataset, download_into, locked, remove_leftovers
from runner.components.data.packed_identity import packed_identity
from runner.components.data.splitting import split_order, stratified_split
from runner.engine.contracts import Data, Images, InMemory, Sampling
from runner.engine.data_summary import Found, count_labels
from runner.engine.fingerprint import identified_by
from runner.errors import ConfigError, DataError
from runner.registry import register
from runner.roles import Aspect, FilePath, Role
from runner.schema import PositiveInt
from runner.user_folders import expand_home
from runner.user_paths import exists, full

_PACKAGE = "torchvision"
_DATASETS = "torchvision.datasets"
_Download = Annotated[bool, Role.EXECUTION]
_BatchSize = Annotated[BatchSize, Aspect.TRAINING]
_Sampled = Annotated[Sampling, Aspect.TRAINING]
_Placed = Annotated[InMemory, Role.EXECUTION]


@register("data")
@identified_by(packed_identity("cifar-10-batches-py/data_batch_*", "cifar-10-batches-py/test_batch"))
def cifar10(
    *,
    root: Annotated[
        str, Role.PATH, FilePath(expand=False, prefetch="cifar-10-batches-py/*", reads="cifar-10-batches-py/*")
    ],
    download: _Download,
    batch_size: _BatchSize,
    sampling: _Sampled,
    val_size: PositiveInt,
    placement: _Placed,
) -> Data:
    """Load CIFAR-10: 60,000 color photographs (3, 32, 32) of 10 classes, 10,000 of them to test (Krizhevsky 2009).

    Args:
        root: Folder of the files.
        download: Download missing files.
        batch_size: Images per forward pass, >= 1.
        sampling: Which images an epoch draws: each once (`shuffle`), or every class equally often (`balanced`).
        val_size: Number of the 50,000 training images that validate, >= 1: a fixed, stratified choice.
        placement: Where pixels are kept: `device`, `host` or `auto` (the device if they fit).

    Raises:
        DataError: The files are missing from `root`, and `download` is false or fails.
    """
    train, test = partial(_import_datasets().CIFAR10, train=True), partial(_import_datasets().CIFAR10, train=False)
    return _torchvision_data(
        "cifar10", train, test, expand_home(root), download, batch_size, val_size, placement, sampling
    )


@register("data")
@identified_by(packed_identity("cifar-100-python/train", "cifar-100-python/test"))
def cifar100(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="cifar-100-python/*", reads="cifar-100-python/*")],
    download: _Download,
    batch_size: _BatchSize,
    sampling: _Sampled,
    val_size: PositiveInt,
    placement: _Placed,
) -> Data:
    """Load CIFAR-100: 60,000 color photographs (3, 32, 32) of 100 classes, 10,000 of them to test (Krizhevsky 2009).

    Knobs and errors are those of `cifar10`.
    """
    train, test = partial(_import_datasets().CIFAR100, train=True), partial(_import_datasets().CIFAR100, train=False)
    return _torchvision_data(
        "cifar100", train, test, expand_home(root), download, batch_size, val_size, placement, sampling
    )


@register("data")
@identified_by(packed_identity("MNIST/raw/train-*-ubyte", "MNIST/raw/t10k-*-ubyte"))
def mnist(
    *,
    root: Annotated[
        str, Role.PATH, FilePath(expand=False, prefetch="MNIST/raw/train-*-ubyte", reads="MNIST/raw/*-ubyte")
    ],
    download: _Download,
    batch_size: _BatchSize,
    sampling: _Sampled,
    val_size: PositiveInt,
    placement: _Placed,
) -> Data:
    """Load MNIST: 70,000 handwritten digits (1, 28, 28), 10,000 of them to test (LeCun et al. 1998).

    Knobs and errors are those of `cifar10`.
    """
    train, test = partial(_import_datasets().MNIST, train=True), partial(_import_datasets().MNIST, train=False)
    return _torchvision_data(
        "mnist", train, test, expand_home(root), download, batch_size, val_size, placement, sampling
    )


@register("data")
@identified_by(packed_identity("FashionMNIST/raw/train-*-ubyte", "FashionMNIST/raw/t10k-*-ubyte"))
def fashion_mnist(
    *,
    root: Annotated[
        str,
        Role.PATH,
        FilePath(expand=False, prefetch="FashionMNIST/raw/train-*-ubyte", reads="FashionMNIST/raw/*-ubyte"),
    ],
    download: _Download,
    batch_size: _BatchSize,
    sampling: _Sampled,
    val_size: PositiveInt,
    placement: _Placed,
) -> Data:
    """Load Fashion-MNIST: 70,000 images of clothes (1, 28, 28), 10 classes, 10,000 to test (arXiv 1708.07747).

    Knobs and errors are those of `cifar10`.
    """
    train, test = (
        partial(_import_datasets().FashionMNIST, train=True),
        partial(_import_datasets().FashionMNIST, train=False),
    )
    return _torchvision_data(
        "fashion_mnist", train, test, expand_home(root), download, batch_size, val_size, placement, sampling
    )


@register("data")
@identified_by(packed_identity("train_32x32.mat", "test_32x32.mat"))
def svhn(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="train_32x32.mat", reads="*_32x32.mat")],
    download: _Download,
    batch_size: _BatchSize,
    sampling: _Sampled,
    val_size: PositiveInt,
    placement: _Placed,
) -> Data:
    """Load SVHN: 99,289 digits of house numbers (3, 32, 32), 26,032 of them to test (Netzer et al. 2011).

    The 531,131 "extra" images are not used. Knobs and errors are those of `cifar10`.
    """
    train, test = partial(_import_datasets().SVHN, split="train"), partial(_import_datasets().SVHN, split="test")
    return _torchvision_data(
        "svhn", train, test, expand_home(root), download, batch_size, val_size, placement, sampling
    )


def _torchvision_data(
    name: str,
    train: OpenDataset,
    test: OpenDataset,
    root: Path,
    download: bool,
    batch_size: int,
    val_size: int,
    placement: InMemory,
    sampling: Sampling,
) -> Data:
    """Return a torchvision data set with part of its training split set aside for validation."""
    dataset = _open_or_download(name, train, root, download)
    images = _to_images(dataset)
    if val_size >= len(images.labels):
        raise ConfigError(f"data.val_size: got {val_size}, must be < {len(images.labels)}, the images to train on")
    _, channels, height, width = images.pixels.shape
    val, remaining = stratified_split(images.labels, split_order(range(len(images.labels))), val_size)
    # SVHN has no class names: its classes are the digits
    classes = tuple(getattr(dataset, "classes", "0123456789"))
    parts = {"train": images.part(remaining), "val": images.part(val)}
    counts = {split: count_labels(part.labels, len(classes)) for split, part in parts.items()}
    return Data(
        train=parts["train"],
        val=parts["val"],
        test=lambda: _to_images(_open_or_download(name, test, root, download)),
        shape=(channels, height, width),
        classes=classes,
        batch_size=batch_size,
        sampling=sampling,
        placement=placement,
        found=Found(count_labels(images.labels, len(classes)), {**counts, "test": None}, {"val": "split from train"}),
    )


def _to_images(dataset: Any) -> Images:
    """Return pixels (N, C, H, W) and labels of torchvision's arrays (N, H, W), (N, H, W, 3) or (N, 3, H, W)."""
    pixels = torch.as_tensor(dataset.data)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels
    pixels = pixels.permute(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels
    labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
    return Images(pixels.contiguous(), labels.long())


def _open_or_download(name: str, make: OpenDataset, root: Path, download: bool) -> Any:
    """Return torchvision's data set from `root`, downloaded first if missing and `download` is true."""
    # Says why a folder cannot be looked at
    exists(root, error=DataError, key="data.root")
    # torchvision raises many exception types for missing, truncated or altered files
    with contextlib.suppress(Exception):
        dataset = make(Path(full(root)), download=False)
        remove_leftovers(root / DOWNLOAD_FOLDER)
        return dataset
    if not download:
        raise DataError(f"data={name}: not in {root}, or damaged, and data.download is false")
    try:
        with locked(root):
            download_into(make, root)
            return make(Path(full(root)), download=False)
    except Exception as error:
        if isinstance(error, HTTPError):
            # The error holds the connection
            error.close()
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise DataError(f"data={name}: cannot be downloaded to {root} ({reason})") from error


def _import_datasets() -> Any:
    """Return the module `torchvision.datasets`, imported without its package unless that is imported already.

    `import torchvision` imports models and operators first, and with them torch's compiler, which takes longer than
    torch itself. So an empty package stands in for it while the data sets are imported, and is removed afterwards: a
    later import gets the full package with these data sets in it. A torchvision with another layout is imported whole.
    """
    if _DATASETS in sys.modules:
        return sys.modules[_DATASETS]
    if _PACKAGE not in sys.modules and (spec := find_spec(_PACKAGE)):
        sys.modules[_PACKAGE] = module_from_spec(spec)
        with contextlib.suppress(AttributeError, ImportError), contextlib.ExitStack() as after:
            after.callback(sys.modules.pop, _PACKAGE)
            from torchvision import datasets as alone

            return alone
    from torchvision import datasets as with_all

    return with_all
