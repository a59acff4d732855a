"""The processes that train one model together: rank, size, and the few exchanges that a step needs.

One process is `ALONE`, whose methods return what they are given, so that nothing asks how many processes there are.
Every process calls the same exchanges in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import RunnerError

# The front door imports this file before it needs torch.
if TYPE_CHECKING:
    import torch
    from torch import Tensor


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class World(Protocol):
    """All processes of a run, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Return the number of this process, 0 to `size` - 1."""
        ...

    @property
    def size(self) -> int:
        """Return the number of processes."""
        ...

    @property
    def is_main(self) -> bool:
        """Return True for the one process that writes files and talks to the user."""
        ...

    def any(self, flag: Tensor) -> Tensor:
        """Set `flag`, 0 or 1 of any shape, to 1 in place where it is 1 in some process, and return it."""
        ...

    def max(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' tensors, of the same shape, type and device."""
        ...

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the rows (n, ...) of all processes, one process after the other; `counts` are their numbers."""
        ...

    def slice(self, index: Tensor) -> Tensor:
        """Return this process's share of the rows (N, ...): shares are disjoint, in order, and differ by one at most.

        A share is empty where there are fewer rows than processes.
        """
        ...

    def device(self, device: torch.device) -> torch.device:
        """Return the device that this process computes on: its own of several GPUs, unless one is numbered."""
        ...

    def from_main(self, make: Callable[[], str]) -> str:
        """Call `make` in the main process only and return its text in all of them.

        A RunnerError that `make` raises is raised in all of them, so that none waits for the others.
        """
        ...


class _Alone:
    """One process."""

    rank = 0
    size = 1
    is_main = True

    def any(self, flag: Tensor) -> Tensor:
        return flag

    def max(self, number: int) -> int:
        return number

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        return rows

    def slice(self, index: Tensor) -> Tensor:
        return index

    def device(self, device: torch.device) -> torch.device:
        return device

    def from_main(self, make: Callable[[], str]) -> str:
        return make()


ALONE: World = _Alone()


class ProcessGroup:
    """The processes of `torch.distributed`'s default group, which must be initialized before any exchange.

    `local_rank` is the number of this process on its machine, which chooses its GPU.
    """

    def __init__(self, rank: int, size: int, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def is_main(self) -> bool:
        """Return True in the process of rank 0."""
        return self.rank == 0

    def any(self, flag: Tensor) -> Tensor:
        """Reduce a flag in place by its maximum."""
        from torch import distributed

        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return flag

    def max(self, number: int) -> int:
        """Reduce a number by its maximum; waits for it."""
        import torch

        return int(self.any(torch.tensor(number, device=self._carrier())).item())

    def sum(self, tensor: Tensor) -> Tensor:
        """Reduce a copy of a tensor by its sum."""
        from torch import distributed

        # NCCL exchanges tensors on GPUs only, and evaluation sums on the host.
        total = tensor.clone() if tensor.is_cuda else tensor.to(self._carrier(), copy=True)
        distributed.all_reduce(total)
        return total.to(tensor.device)

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Exchange rows that are padded to the largest number of them."""
        import torch
        from torch import distributed

        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(found, padded)
        return torch.cat([each[:count] for each, count in zip(found, counts, strict=True)])

    def slice(self, index: Tensor) -> Tensor:
        """Return the rows of this rank; no exchange."""
        return index.tensor_split(self.size)[self.rank]

    def device(self, device: torch.device) -> torch.device:
        """Return the GPU of the local rank for a GPU without a number."""
        import torch

        return torch.device("cuda", self.local_rank) if device.type == "cuda" and device.index is None else device

    def from_main(self, make: Callable[[], str]) -> str:
        """Broadcast the text that rank 0 makes, or its error."""
        # The front door imports this file for each command line, and none needs it before this exchange.
        import json

        failure: RunnerError | None = None
        answer: dict[str, Any] = {}
        if self.is_main:
            try:
                answer = {"text": make()}
            except RunnerError as error:
                failure, answer = error, {"error": str(error), "exit_code": error.exit_code}
        answer = json.loads(self._broadcast(json.dumps(answer).encode()))
        if failure is not None:
            raise failure
        if "error" in answer:
            told = RunnerError(answer["error"])
            told.exit_code = answer["exit_code"]
            raise told
        return str(answer["text"])

    def _broadcast(self, data: bytes) -> bytes:
        """Return rank 0's bytes."""
        import torch
        from torch import distributed

        # Every process holds a buffer of rank 0's size.
        length = self.max(len(data) if self.is_main else 0)
        buffer = torch.frombuffer(bytearray(data.ljust(length)[:length]), dtype=torch.uint8).to(self._carrier())
        distributed.broadcast(buffer, src=0)
        return buffer.cpu().numpy().tobytes()

    def _carrier(self) -> torch.device:
        """Return a device whose tensors the group exchanges."""
        import torch
        from torch import distributed

        nccl = distributed.get_backend() == "nccl"
        return torch.device("cuda", self.local_rank) if nccl else torch.device("cpu")
