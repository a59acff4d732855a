"""The data sets that torchvision downloads and reads."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError

import torch

from runner.components.data.downloading import PART, Open, clear, fetch
from runner.components.data.locking import locked
from runner.components.data.splitting import ranks, set_aside
from runner.components.data.torchvision_alone import datasets
from runner.engine.contracts import Data, Images, InMemory
from runner.errors import ConfigError, DataError
from runner.registry import register
from runner.roles import Aspect, FilePath, Role
from runner.schema import PositiveInt

Download = Annotated[bool, Role.EXECUTION]
BatchSize = Annotated[PositiveInt, Aspect.TRAINING]
Placed = Annotated[InMemory, Role.EXECUTION]


@register("data")
def cifar10(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="cifar-10-batches-py/*")],
    download: Download,
    batch_size: BatchSize,
    val_size: PositiveInt,
    placement: Placed,
) -> Data:
    """Return CIFAR-10: 60,000 colour photographs (3, 32, 32) of 10 things, 10,000 of them to test.

    `val_size` of the 50,000 training images validate: a fixed, stratified choice. Raises DataError where the files are
    not in `root` and are not to be, or cannot be, downloaded. Source: Krizhevsky 2009.
    """
    train, test = partial(datasets().CIFAR10, train=True), partial(datasets().CIFAR10, train=False)
    return published("cifar10", train, test, Path(root).expanduser(), download, batch_size, val_size, placement)


@register("data")
def cifar100(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="cifar-100-python/*")],
    download: Download,
    batch_size: BatchSize,
    val_size: PositiveInt,
    placement: Placed,
) -> Data:
    """Return CIFAR-100: 60,000 colour photographs (3, 32, 32) of 100 things, 10,000 of them to test.

    Splits and errors are those of cifar10. Source: Krizhevsky 2009.
    """
    train, test = partial(datasets().CIFAR100, train=True), partial(datasets().CIFAR100, train=False)
    return published("cifar100", train, test, Path(root).expanduser(), download, batch_size, val_size, placement)


@register("data")
def mnist(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="MNIST/raw/train-*-ubyte")],
    download: Download,
    batch_size: BatchSize,
    val_size: PositiveInt,
    placement: Placed,
) -> Data:
    """Return MNIST: 70,000 handwritten digits (1, 28, 28), 10,000 of them to test.

    Splits and errors are those of cifar10. Source: LeCun et al. 1998.
    """
    train, test = partial(datasets().MNIST, train=True), partial(datasets().MNIST, train=False)
    return published("mnist", train, test, Path(root).expanduser(), download, batch_size, val_size, placement)


@register("data")
def fashion_mnist(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="FashionMNIST/raw/train-*-ubyte")],
    download: Download,
    batch_size: BatchSize,
    val_size: PositiveInt,
    placement: Placed,
) -> Data:
    """Return Fashion-MNIST: 70,000 pictures of clothes (1, 28, 28) of 10 kinds, 10,000 of them to test.

    Splits and errors are those of cifar10. Source: Xiao et al. 2017, arXiv 1708.07747.
    """
    train, test = partial(datasets().FashionMNIST, train=True), partial(datasets().FashionMNIST, train=False)
    return published("fashion_mnist", train, test, Path(root).expanduser(), download, batch_size, val_size, placement)


@register("data")
def svhn(
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False, prefetch="train_32x32.mat")],
    download: Download,
    batch_size: BatchSize,
    val_size: PositiveInt,
    placement: Placed,
) -> Data:
    """Return SVHN: 99,289 house numbers cut into digits (3, 32, 32), 26,032 of them to test (no "extra" images).

    Splits and errors are those of cifar10. Source: Netzer et al. 2011.
    """
    train, test = partial(datasets().SVHN, split="train"), partial(datasets().SVHN, split="test")
    return published("svhn", train, test, Path(root).expanduser(), download, batch_size, val_size, placement)


def published(
    name: str, train: Open, test: Open, root: Path, download: bool, batch_size: int, val_size: int, placement: InMemory
) -> Data:
    """Return a torchvision data set with a part of its training split set aside to validate."""
    made = opened(name, train, root, download)
    images = images_of(made)
    if val_size >= len(images.labels):
        raise ConfigError(f"data.val_size: got {val_size}, must be < {len(images.labels)}, the images to train on")
    _, channels, height, width = images.pixels.shape
    val, rest = set_aside(images.labels, ranks(range(len(images.labels))), val_size)
    return Data(
        train=images.part(rest),
        val=images.part(val),
        test=lambda: images_of(opened(name, test, root, download)),
        shape=(channels, height, width),
        classes=tuple(getattr(made, "classes", "0123456789")),  # SVHN's are not named: they are the digits
        batch_size=batch_size,
        placement=placement,
    )


def images_of(made: Any) -> Images:
    """Return the pixels (N, C, H, W) and labels of torchvision's arrays (N, H, W), (N, H, W, 3) or (N, 3, H, W)."""
    pixels = torch.as_tensor(made.data)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels
    pixels = pixels.permute(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels
    labels = torch.as_tensor(made.targets if hasattr(made, "targets") else made.labels)
    return Images(pixels.contiguous(), labels.long())


def opened(name: str, make: Open, root: Path, download: bool) -> Any:
    """Return torchvision's data set from `root`, downloaded first if it is not there and may be."""
    with contextlib.suppress(Exception):  # torchvision raises many types for files missing, cut off or altered
        made = make(root, download=False)
        clear(root / PART)
        return made
    if not download:
        raise DataError(f"data={name}: not in {root}, or damaged, and data.download is false")
    try:
        with locked(root):
            fetch(make, root)
            return make(root, download=False)
    except Exception as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise DataError(f"data={name}: cannot be downloaded to {root} ({reason})") from error
