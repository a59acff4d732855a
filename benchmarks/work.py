"""The work that every loop gets: the same tensors in the same order, initial weights and optimizer; and its turns.

runner makes the work once and writes it to a file, so the process of a peer executes no code of runner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rounds import Size


@dataclass(frozen=True)
class Work:
    """Training data, order of the examples, initial weights and optimizer."""

    overrides: list[str]  # the overrides that make runner do this work
    network: str | nn.Module  # name of a function below, or the model itself
    images: Tensor  # (N, C, H, W) float32, preprocessed
    labels: Tensor  # (N,) int64
    batch: int
    order_keys: list[int]  # the seed of each epoch's permutation
    weights: list[Tensor]
    optimizer: str  # name of a class in torch.optim
    groups: list[dict[str, Any]]  # its parameter groups, with positions of the tensors

    @property
    def device(self) -> torch.device:
        """The device of the training."""
        return self.images.device

    def model(self) -> nn.Module:
        """Return the model with its initial weights."""
        model = _NETWORKS[self.network]() if isinstance(self.network, str) else deepcopy(self.network)
        model = model.to(self.device)
        with torch.no_grad():
            for parameter, weight in zip(model.parameters(), self.weights, strict=True):
                parameter.copy_(weight)
        return model

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return torch's fused optimizer of a model."""
        parameters = list(model.parameters())
        groups = [{**group, "params": [parameters[i] for i in group["params"]]} for group in self.groups]
        return getattr(torch.optim, self.optimizer)(groups, lr=groups[0]["lr"], fused=True)

    def visits(self, steps: int) -> Iterator[Tensor]:
        """Yield the examples of each step, (B,) int64 on the device: a permutation per epoch, in batches."""
        for key in self.order_keys:
            generator = torch.Generator().manual_seed(key)
            order = torch.randperm(len(self.labels), generator=generator).to(self.device)
            for index in order.split(self.batch)[:steps]:
                yield index
                steps -= 1

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Return the mean loss of a trained model over all the training images."""
        model.eval()
        parts = zip(self.images.split(1000), self.labels.split(1000), strict=True)
        return float(sum(F.cross_entropy(model(x), y, reduction="sum") for x, y in parts) / len(self.labels))


class TensorBatches:
    """Batches of images and labels with turns and a length, as a loader for frameworks."""

    def __init__(self, work: Work, pace: Pace) -> None:
        self.work, self.pace = work, pace

    def __len__(self) -> int:
        return self.pace.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self.pace(self.work.visits(self.pace.steps)):
            yield self.work.images[index], self.work.labels[index]


def write_work(path: Path, network: str, overrides: list[str], steps: int) -> None:
    """Write the work of a run with `steps` steps; without the name of a network it holds the model of runner."""
    from benchmarks.experiments import experiment
    from runner.engine.randomness import key

    made = experiment(overrides)
    split, model, optimizer = made.batches.split, made.learner.model, made.learner.optimizer
    place = {parameter: i for i, parameter in enumerate(model.parameters())}
    rows = [{**group, "params": [place[p] for p in group["params"]]} for group in optimizer.param_groups]
    with torch.no_grad():
        images = made.learner.preprocess(split.fetch(torch.arange(len(split.labels), device=split.labels.device)))
    work = Work(
        overrides=overrides,
        network=network or model,
        images=images,
        labels=split.labels.to(images.device),
        batch=made.batches.batch,
        order_keys=[key(0, "order", epoch) for epoch in range(steps * made.batches.batch // len(images) + 2)],
        weights=[p.detach().clone() for p in model.parameters()],
        optimizer=type(optimizer).__name__,
        groups=rows,
    )
    torch.save(work, path)


def read_work(path: Path) -> Work:
    """Return the work that `write_work` wrote."""
    work: Work = torch.load(path, weights_only=False)
    return work


_T = TypeVar("T")


class Pace:
    """Pauses a loop between two batches, reports the time of its last turn, and waits for the next turn.

    A turn is `turn` steps, from the arrival of a batch to the arrival of the batch `turn` steps later. A loop that
    prefetches does so in every turn. Start and end of a framework lie outside the turns and are not timed.
    """

    def __init__(self, size: Size, connection: Connection | None = None, *, cuda: bool = False) -> None:
        self.size, self.steps, self.connection = size, size.steps, connection
        self.clock = _CudaClock() if cuda else _Clock()

    def __call__(self, batches: Iterable[_T]) -> Iterator[_T]:
        """Yield the batches, pausing at the end of each turn."""
        left = self.size.warm if self.connection else -1
        for batch in batches:
            if not left:
                self.halt()
                left = self.size.turn
            left -= 1
            yield batch

    def halt(self) -> None:
        """Send the seconds of the last turn (None before the first), and wait for the next turn."""
        assert self.connection is not None
        self.connection.send(self.clock.stop())
        self.connection.recv()
        self.clock.start()


class _Clock:
    """Wall clock of the host."""

    began: float | None = None

    def start(self) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def stop(self) -> float | None:
        """Return the seconds since the start, or None if there was none."""
        return None if self.began is None else time.perf_counter() - self.began


class _CudaClock:
    """Clock of the GPU: kernels launched before `stop` count."""

    began: torch.cuda.Event | None = None

    def start(self) -> None:
        """Start the clock."""
        torch.cuda.synchronize()
        self.began = torch.cuda.Event(enable_timing=True)
        self.began.record()

    def stop(self) -> float | None:
        """Return the seconds since the start, or None if there was none."""
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        torch.cuda.synchronize()
        return None if self.began is None else self.began.elapsed_time(end) / 1000


def _mlp() -> nn.Module:
    """Return the MLP 64-128-128-10 for images (B, 1, 8, 8)."""
    hidden = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))


def _cnn() -> nn.Module:
    """Return three blocks of convolution, batch norm, ReLU and pooling for images (B, 1, 32, 32)."""
    layers: list[nn.Module] = []
    for cin, cout in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 6))


def _resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 with a 3x3 first convolution, for images (B, 1, 32, 32)."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=6)
    model.conv1, model.maxpool = nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.Identity()
    return model


# The tensors come in the order of runner's own models.
_NETWORKS = {"mlp": _mlp, "cnn": _cnn, "resnet18": _resnet18}
