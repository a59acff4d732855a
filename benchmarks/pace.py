"""Taking turns: loops of several processes run a few steps each, one after the other, each under its own clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from benchmarks.size import Size

T = TypeVar("T")


class Pace:
    """Halts a loop between two batches, tells how long its last turn took, and goes on when told to.

    A turn is `turn` steps, from a batch's arrival to that of the batch `turn` steps later; a loop that fetches ahead
    does so in every turn. Nothing before the first turn or after the last is timed: no start, no end of a framework.
    """

    def __init__(self, size: Size, connection: Connection | None = None, *, cuda: bool = False) -> None:
        self.size, self.steps, self.connection = size, size.steps, connection
        self.clock = CudaClock() if cuda else Clock()

    def __call__(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, halting where a turn ends."""
        left = self.size.warm if self.connection else -1
        for batch in batches:
            if not left:
                self.halt()
                left = self.size.turn
            left -= 1
            yield batch

    def halt(self) -> None:
        """Report the turn that is over (the first time: nothing), and wait for the next."""
        assert self.connection is not None
        self.connection.send(self.clock.stop())
        self.connection.recv()
        self.clock.start()


class Clock:
    """The host's clock."""

    began: float | None = None

    def start(self) -> None:
        """Begin."""
        self.began = time.perf_counter()

    def stop(self) -> float | None:
        """Return the seconds since the start, if there was one."""
        return None if self.began is None else time.perf_counter() - self.began


class CudaClock:
    """The GPU's clock: what was launched before `stop` counts."""

    began: torch.cuda.Event | None = None

    def start(self) -> None:
        """Begin."""
        torch.cuda.synchronize()
        self.began = torch.cuda.Event(enable_timing=True)
        self.began.record()

    def stop(self) -> float | None:
        """Return the seconds since the start, if there was one."""
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        torch.cuda.synchronize()
        return None if self.began is None else self.began.elapsed_time(end) / 1000
