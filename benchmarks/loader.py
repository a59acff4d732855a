"""Images per second from memory to the model's input: runner's batches against torchvision's transforms of PIL images.

`python -m benchmarks.loader [FOLDER]`: 32x32 color images, random ones or the first of a folder of files, padded by 4,
cropped, flipped and standardized, on one thread. The peer is a `DataLoader` over `Image.fromarray(pixels[i])`, as in
torchvision's CIFAR-10, in this process and with two workers (already running when the clock starts).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import runner.components  # noqa: F401
from benchmarks.rounds import interleave
from runner.engine.batches import TrainBatches
from runner.engine.contracts import Images
from runner.registry import build, option_config

COUNT, _BATCH, _PADDING = 12_800, 128, 4
_Pixels = np.ndarray  # (N, 32, 32, 3) uint8


class _InMemory(Dataset):  # type: ignore[type-arg]
    """Images as in torchvision's data sets: created from an array and transformed one by one."""

    def __init__(self, pixels: _Pixels, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        """Return an image (3, 32, 32) float32 and a label."""
        return self.transform(Image.fromarray(self.pixels[place])), place % 10


def ours(pixels: _Pixels, batch: int) -> TrainBatches:
    """Return the batches that a run with augment=[crop,hflip] trains on."""
    shape = (3, 32, 32)
    split = Images(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.arange(len(pixels)) % 10)
    crop, hflip = (option_config("augment", name, key="augment")[name] for name in ("crop", "hflip"))
    preprocess = build("preprocess", {"name": "standardize"}, shape=shape)
    preprocess.fit(split)
    augments = [
        build("augment", {"name": "crop", **crop, "padding": _PADDING}, shape=shape),
        build("augment", {"name": "hflip", **hflip}, shape=shape),
    ]
    device = torch.device("cpu")
    return TrainBatches(split, batch=batch, seed=0, augments=augments, preprocess=preprocess, device=device)


def _by_pil(pixels: _Pixels, batch: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return torchvision's loader of the same images."""
    exact = pixels.astype(np.float64) / 255
    steps = [
        transforms.RandomCrop(32, padding=_PADDING),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(exact.mean((0, 1, 2)), exact.std((0, 1, 2))),
    ]
    data = _InMemory(pixels, transforms.Compose(steps))
    return DataLoader(data, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def seconds(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the seconds of one epoch."""
    start = time.perf_counter()
    count = sum(len(labels) for _, labels in batches)
    spent = time.perf_counter() - start
    assert count == COUNT, count
    return spent


def _assert_alike(mine: Iterable[tuple[Tensor, Tensor]], theirs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Assert that both give batches of the same shape and dtype, with the same images up to randomness."""
    (some, _), (other, _) = (next(iter(batches)) for batches in (mine, theirs))
    assert some.shape == other.shape and some.dtype == other.dtype
    totals = [torch.stack([x.mean((0, 2, 3)) for x, _ in batches]).mean(0) for batches in (mine, theirs)]
    assert torch.allclose(*totals, atol=0.02), totals


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loader(
    rounds: int, *, batch: int = _BATCH, workers: int = 0, folder: str | None = None
) -> list[tuple[float, float]]:
    """Return the seconds (runner, PIL) of an epoch of COUNT images, in each round."""
    pixels = _from_files(Path(folder)) if folder else _random_images()
    mine, theirs = ours(pixels, batch), _by_pil(pixels, batch, workers)
    steps = mine.steps_per_epoch
    with _one_thread():
        _assert_alike(mine.stream(0, steps), theirs)
        return interleave(lambda: seconds(mine.stream(0, steps)), lambda: seconds(theirs), rounds)


def _random_images() -> _Pixels:
    """Return random images."""
    return np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)


def _from_files(folder: Path) -> _Pixels:
    """Return the first images in a folder of classes."""
    paths = islice(sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png")), COUNT)
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def main(folder: str | None = None, rounds: int = 7) -> None:
    """Print images per second of both, and their ratio."""
    for batch, workers in ((_BATCH, 0), (4 * _BATCH, 0), (_BATCH, 2)):
        pairs = loader(rounds, batch=batch, workers=workers, folder=folder)
        times = sorted(other / mine for mine, other in pairs)
        mine, other = (COUNT / statistics.median(column) / 1000 for column in zip(*pairs, strict=True))
        print(
            f"batch {batch}, PIL with {workers} workers: ours {mine:.0f} k images/s, PIL {other:.1f} k, "
            f"{statistics.median(times):.1f} times ({times[0]:.1f} to {times[-1]:.1f}, n={len(times)})",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
