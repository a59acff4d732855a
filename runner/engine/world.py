"""The processes that train one model together: rank, size, and the few exchanges that a step needs.

One process is `ALONE`, whose methods return what they are given, so that nothing asks how many processes there are.
Every process calls the same exchanges in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by the sum of the processes' tensors in place, as a part of a step, and return it."""
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

    def check_alike(self, values: Mapping[str, int | str], what: str) -> None:
        """Raise ProcessesDiffer if named values differ between processes; `what` says what they are."""
        ...

    def remember(self, folder: Path) -> None:
        """Keep the folder of the run for the next attempt of the same processes."""
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

    def add_up(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        return rows

    def slice(self, index: Tensor) -> Tensor:
        return index

    def device(self, device: torch.device) -> torch.device:
        return device

    def from_main(self, make: Callable[[], str]) -> str:
        return make()

    def check_alike(self, values: Mapping[str, int | str], what: str) -> None:
        pass

    def remember(self, folder: Path) -> None:
        pass


ALONE: World = _Alone()
