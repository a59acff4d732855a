"""The work that every loop gets: the same tensors in the same order, the same first weights, the same optimizer.

The runner makes it once; it travels in a file, so that a peer's process executes nothing of the runner's.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import networks
from benchmarks.pace import Pace


@dataclass(frozen=True)
class Work:
    """What to train on, in which order, from which weights, with which optimizer."""

    overrides: list[str]  # the command line of the runner that does this
    network: str | nn.Module  # a function of networks.py, or the model itself
    images: Tensor  # (N, C, H, W) float32, preprocessed
    labels: Tensor  # (N,) int64
    batch: int
    order_keys: list[int]  # the seed of each epoch's permutation
    weights: list[Tensor]
    optimizer: str  # a class of torch.optim
    groups: list[dict[str, Any]]  # its parameter groups, with the tensors' positions

    @property
    def device(self) -> torch.device:
        """Where the training happens."""
        return self.images.device

    def model(self) -> nn.Module:
        """Return the model with its first weights."""
        model = getattr(networks, self.network)() if isinstance(self.network, str) else deepcopy(self.network)
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
    """Images and labels at a pace, with a length: what frameworks take as a loader that need not look ahead."""

    def __init__(self, work: Work, pace: Pace) -> None:
        self.work, self.pace = work, pace

    def __len__(self) -> int:
        return self.pace.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self.pace(self.work.visits(self.pace.steps)):
            yield self.work.images[index], self.work.labels[index]


def write_work(path: Path, network: str, overrides: list[str], steps: int) -> None:
    """Write the work of so many steps of a run; without the name of a network it carries the runner's own model."""
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
    """Return what `write_work` wrote."""
    work: Work = torch.load(path, weights_only=False)
    return work
