"""The division of a batch into micro-batches, and of each of these among the processes that train together.

The division changes who computes what, and no number but by rounding: each loss is weighted by its share of the whole
batch, and the gradients of all parts are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from runner.engine.joint_statistics import average_statistics, batch_norms, checksums
from runner.engine.losses import Loss, LossFunction
from runner.engine.whole_draws import whole_draws
from runner.engine.world import World

# Images (b, C, H, W), labels (b,) or (b, K), and their share of the loss of the whole batch
_Part = tuple[Tensor, Tensor, Tensor | float]
_Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Division(Protocol):
    """The micro-batches of a step that this process computes, and what becomes of their gradients."""

    @property
    def count(self) -> int:
        """Return the number of micro-batches of a step."""
        ...

    @property
    def draws_as(self) -> int:
        """Return the rank that random numbers of layers are seeded with; 0 if all processes draw alike."""
        ...

    @property
    def adds_penalties(self) -> bool:
        """Return True if this process adds the gradients of the penalties."""
        ...

    def parts(self, images: Tensor, labels: Tensor, step: int) -> Iterator[_Part]:
        """Yield the micro-batches of the examples of this process, in step `step` (0 is the first)."""
        ...

    def add_up(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Replace the gradients of a model by their sum over all processes, and return that of the loss ()."""
        ...

    def mixed(self, mix: _Mix) -> _Mix:
        """Return a mix of the examples of this process with those of the whole batch."""
        ...

    def settle(self, *models: nn.Module) -> None:
        """Make models the same in all processes before they are evaluated or saved, and check that they are."""
        ...


class MicroBatches:
    """The division in one process: micro-batches of about the same size, fewer if the batch is too small."""

    adds_penalties = True
    draws_as = 0

    def __init__(self, count: int) -> None:
        self.count = count

    def parts(self, images: Tensor, labels: Tensor, step: int) -> Iterator[_Part]:
        """Yield the micro-batches; the share of each is its part of the examples."""
        if self.count == 1:
            yield images, labels, 1.0
            return
        for x, y in zip(images.chunk(self.count), labels.chunk(self.count), strict=True):
            yield x, y, len(x) / len(images)

    def add_up(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Return the loss."""
        return loss

    def mixed(self, mix: _Mix) -> _Mix:
        """Return the mix."""
        return mix

    def settle(self, *models: nn.Module) -> None:
        """Do nothing."""


class Shared:
    """The division among several processes: each has its share of each micro-batch, which may be empty.

    Args:
        world: The processes.
        count: The micro-batches of a step.
        size_of: The examples of all processes in a step.
        loss: The training loss, whose weights of examples are added up first.
        whole: Random numbers of layers are drawn for the whole micro-batch, and each process takes its rows.
        local_norms: BatchNorms have statistics of their own in each process, which are averaged before they are used.
    """

    def __init__(
        self,
        world: World,
        count: int,
        size_of: Callable[[int], int],
        loss: Loss | LossFunction,
        *,
        whole: bool,
        local_norms: bool,
    ) -> None:
        self._local_norms = local_norms
        self._world, self.count, self._size_of, self._whole = world, count, size_of, whole
        self._weight = loss.weight if isinstance(loss, Loss) else None
        self.adds_penalties, self.draws_as = world.is_main, 0 if whole else world.rank

    def parts(self, images: Tensor, labels: Tensor, step: int) -> Iterator[_Part]:
        """Yield this process's share of each micro-batch."""
        size = self._size_of(step)
        places = _places(self._world, size, self.count)
        own = [len(rows) for rows, _ in places]
        split = list(zip(torch.split(images, own), torch.split(labels, own), strict=True))
        weights = self._weights([y for _, y in split], [whole for _, whole in places])
        for number, (x, y) in enumerate(split):
            rows, whole = places[number]
            with self._draws(rows, whole):
                yield x, y, weights[number] * (whole / size) if rows else 0.0

    def _weights(self, labels: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor | float]:
        """Return the share of this process in the loss of each micro-batch."""
        if self._weight is None:
            return [len(y) / whole for y, whole in zip(labels, sizes, strict=True)]
        own = torch.stack([self._weight(y) for y in labels])
        return list(own / self._world.add_up(own.clone()))

    def _draws(self, rows: range, whole: int) -> AbstractContextManager[object]:
        return whole_draws(rows, whole) if self._whole else nullcontext()

    @torch.no_grad()
    def add_up(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Add up gradients and loss in one exchange per data type."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        total = loss.reshape(1).clone()
        for kind in {each.dtype for each in (*gradients, total)}:
            same = [each for each in (*gradients, total) if each.dtype == kind]
            # Half precision would lose digits of the sum
            exact = torch.float32 if kind.itemsize < 4 else kind
            flat = self._world.add_up(torch.cat([each.reshape(-1).to(exact) for each in same]))
            pieces = torch.split(flat, [each.numel() for each in same])
            torch._foreach_copy_(same, [new.view_as(old) for new, old in zip(pieces, same, strict=True)])
        return total[0]

    def mixed(self, mix: _Mix) -> _Mix:
        """Return a mix of the whole batch of a step: partners may be examples of other processes."""

        def whole(images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
            own = self._rows(step, self._world.rank)
            order = torch.cat([self._rows(step, rank) for rank in range(self._world.size)]).argsort().to(images.device)
            counts = [len(self._rows(step, rank)) for rank in range(self._world.size)]
            every = [self._world.gather(each, counts)[order] for each in (images, labels)]
            mixed, soft = mix(every[0], every[1], step)
            own = own.to(images.device)
            return mixed[own], soft[own]

        return whole

    def settle(self, *models: nn.Module) -> None:
        """Average the statistics of BatchNorms that are those of one process, and compare all tensors."""
        for model in dict.fromkeys(models):
            if self._local_norms:
                average_statistics(batch_norms(model), self._world)
            self._world.check_alike(checksums(model), "the processes have trained different models")

    def _rows(self, step: int, rank: int) -> Tensor:
        """Return the positions of the examples of a process in the batch of a step, in its order."""
        return _share_of(torch.arange(self._size_of(step)), self.count, self._world.size, rank)


def _share_of(index: Tensor, count: int, size: int, rank: int) -> Tensor:
    """Return the share of a process: its rows (n, ...) of each of `count` micro-batches of a batch (N, ...)."""
    return torch.cat([part.tensor_split(size)[rank] for part in index.chunk(count)])


@cache
def _places_of(size: int, count: int, processes: int, rank: int) -> list[tuple[range, int]]:
    """Return for each micro-batch the rows of a process, and the examples of all."""
    found = []
    for part in torch.arange(size).chunk(count):
        own = torch.arange(len(part)).tensor_split(processes)[rank]
        first = int(own[0]) if len(own) else 0
        found.append((range(first, first + len(own)), len(part)))
    return found


def _places(world: World, size: int, count: int) -> list[tuple[range, int]]:
    return _places_of(size, count, world.size, world.rank)
