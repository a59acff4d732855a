"""Several processes of a run: the exchanges of `World` over torch.distributed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from runner.engine.process_errors import ProcessesDiffer, ProcessLost
from runner.errors import RunnerError, short_reason

# The group that this process has joined
_joined: list[ProcessGroup] = []


def add_up(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over the processes that train together, in place, and return it."""
    if _joined:
        return _joined[-1].add_up(tensor)
    distributed.all_reduce(tensor)
    return tensor


class ProcessGroup:
    """The processes of `torch.distributed`'s default group, which must be initialized before any exchange.

    Args:
        rank, size: The number of this process, and of all.
        local_rank: The number of this process on its machine, which chooses its GPU.
        patient: The group for exchanges that some process may begin late; the default one if None.
        explain: Turns the failure of an exchange into an error that names its cause.
        remember: Keeps the folder of the run for the next attempt.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        local_rank: int = 0,
        *,
        patient: distributed.ProcessGroup | None = None,
        explain: Callable[[str], RunnerError] = ProcessLost,
        remember: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._patient, self._explain, self._remember = patient, explain, remember

    @contextmanager
    def joined(self) -> Iterator[ProcessGroup]:
        """Let layers exchange by this group in the body."""
        _joined.append(self)
        try:
            yield self
        finally:
            _joined.remove(self)

    @property
    def is_main(self) -> bool:
        """Return True in the process of rank 0."""
        return self.rank == 0

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Raise what the failure of an exchange means."""
        try:
            yield
        except RuntimeError as error:
            raise self._explain(short_reason(error)) from error

    def any(self, flag: Tensor) -> Tensor:
        """Reduce a flag in place by its maximum."""
        with self._exchanging():
            distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return flag

    def max(self, number: int) -> int:
        """Reduce a number by its maximum, on the host."""
        return int(self.any(torch.tensor(number)).item())

    def add_up(self, tensor: Tensor) -> Tensor:
        """Reduce a tensor in place by its sum, as a part of a step."""
        with self._exchanging():
            distributed.all_reduce(tensor)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Reduce a copy of a tensor by its sum."""
        total = tensor.clone()
        with self._exchanging():
            distributed.all_reduce(total, group=self._patient)
        return total

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Exchange rows that are padded to the largest number of them."""
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        with self._exchanging():
            distributed.all_gather(found, padded)
        return torch.cat([each[:count] for each, count in zip(found, counts, strict=True)])

    def slice(self, index: Tensor) -> Tensor:
        """Return the rows of this rank; no exchange."""
        return index.tensor_split(self.size)[self.rank]

    def device(self, device: torch.device) -> torch.device:
        """Return the GPU of the local rank for a GPU without a number."""
        return torch.device("cuda", self.local_rank) if device.type == "cuda" and device.index is None else device

    def from_main(self, make: Callable[[], str]) -> str:
        """Broadcast the text that rank 0 makes, or its error."""
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

    def check_alike(self, values: Mapping[str, int | str], what: str) -> None:
        """Compare with the values of rank 0; each process learns of the first that has others."""
        own = {name: str(value) for name, value in values.items()}
        main = json.loads(self._broadcast(json.dumps(own).encode()))
        different = next((name for name in {**main, **own} if main.get(name) != own.get(name)), "")
        if worst := self.max(self.size - self.rank if different else 0):
            rank = self.size - worst
            name = self._broadcast(different.encode(), rank).decode().rstrip("\0")
            raise ProcessesDiffer(f"{what}: rank {rank} has another {name} than rank 0")

    def remember(self, folder: Path) -> None:
        """Keep the folder of the run for the next attempt."""
        self._remember(folder)

    def _broadcast(self, data: bytes, source: int = 0) -> bytes:
        """Return the bytes of a rank."""
        # Every process holds a buffer of their size
        with self._exchanging():
            length = torch.tensor(len(data) if self.rank == source else 0)
            distributed.all_reduce(length, distributed.ReduceOp.MAX, group=self._patient)
            buffer = torch.frombuffer(
                bytearray(data.ljust(int(length), b"\0")[: int(length)] or b"\0"), dtype=torch.uint8
            )
            distributed.broadcast(buffer, src=source, group=self._patient)
        return buffer.numpy().tobytes()
