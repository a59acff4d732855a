"""Wall time, data wait and memory of the steps of a run: measured here, logged under `time/`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from runner.engine.batches import TrainBatches

_MB = 1e6  # bytes
STEP, SPEED, WAIT, MEMORY = TAGS = (
    "time/step_ms",
    "time/examples_per_second",
    "time/data_wait",
    "time/peak_memory_mb",
)
_Batch = tuple[Tensor, Tensor]


class _Lap(NamedTuple):
    """Some consecutive steps and the wall time that they took."""

    steps: int
    seconds: float

    @property
    def step_ms(self) -> float:
        """The mean wall time of a step in milliseconds."""
        return 1000 * self.seconds / self.steps


class Stopwatch:
    """Measures laps of steps by the host's clock; stands still from `stop` until the next `start`.

    Args:
        step: Optimizer steps done before the first lap.
    """

    def __init__(self, step: int = 0) -> None:
        self._step = step
        self._began: float | None = None

    def start(self, now: float) -> None:
        """Begin a lap at the time `now`, unless one is under way."""
        if self._began is None:
            self._began = now

    def stop(self, step: int) -> _Lap:
        """End the lap after `step` optimizer steps and return it."""
        assert self._began is not None, "no lap is under way"
        lap = _Lap(step - self._step, perf_counter() - self._began)
        self._began, self._step = None, step
        return lap

    def split(self, step: int) -> _Lap | None:
        """End a lap and begin the next one at the same moment; None the first time, when no lap was under way."""
        now = perf_counter()
        lap = None if self._began is None else _Lap(step - self._step, now - self._began)
        self._began, self._step = now, step
        return lap


class Timing:
    """Times the steps of the training loop, without validation and checkpoints.

    A lap begins when the loop asks for its first batch and ends in `lap`; what the loop does between a lap and the next
    batch counts in none. The device is never waited for: call `lap` after a flush, which waits anyway. Where batches
    are made on a GPU, the wait for one is the time to launch that work.

    Args:
        batches: The batches that the loop reads; says how many examples a step takes, and the device.
        step: Optimizer steps done so far.
    """

    def __init__(self, batches: TrainBatches, step: int) -> None:
        self._batches, self._step = batches, step
        self._stopwatch = Stopwatch(step)
        self._waited = 0.0
        if batches.device.type == "cuda":
            # An earlier run in this process may have used more.
            torch.cuda.reset_peak_memory_stats(batches.device)

    def watched(self, stream: Iterator[_Batch]) -> Iterator[_Batch]:
        """Yield the batches of a stream and time the wait for each."""
        asked = perf_counter()
        self._stopwatch.start(asked)
        for batch in stream:
            self._waited += perf_counter() - asked
            yield batch
            asked = perf_counter()
            self._stopwatch.start(asked)

    def lap(self, step: int) -> dict[str, float]:
        """End a lap after `step` optimizer steps and return its cost.

        Returns:
            `time/step_ms`, the mean wall time of a step; `time/examples_per_second`; `time/data_wait`, the share of the
            time in [0, 1]; `time/peak_memory_mb`, the largest so far in 10^6 bytes.
        """
        lap = self._stopwatch.stop(step)
        examples, waited = self._examples(step) - self._examples(self._step), self._waited
        self._waited, self._step = 0.0, step
        return {
            STEP: lap.step_ms,
            SPEED: examples / lap.seconds,
            WAIT: waited / lap.seconds,
            MEMORY: peak_memory(self._batches.device) / _MB,
        }

    def _examples(self, step: int) -> int:
        """Return how many examples the first `step` steps take; the last step of an epoch takes what is left."""
        epochs, steps = divmod(step, self._batches.steps_per_epoch)
        return epochs * len(self._batches.split.labels) + steps * self._batches.batch


def typical(metrics: Path) -> dict[str, float]:
    """Return the typical cost of a run's steps from its `metrics.jsonl`.

    Returns:
        The median of each `time/` tag over the laps of all sessions, so that a slow start does not count, and the
        largest peak memory. Empty for a run without a lap and for a missing file.
    """
    if not metrics.exists():
        return {}
    with metrics.open(encoding="utf-8") as lines:
        laps = [json.loads(line) for line in lines if '"time/step_ms"' in line and line.endswith("\n")]
    if not laps:
        return {}
    return {tag: median(lap[tag] for lap in laps) for tag in TAGS} | {MEMORY: max(lap[MEMORY] for lap in laps)}


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the tensors on a GPU, else of the whole process.

    On Linux a process inherits the peak of its parent, so a small run that a large process started shows the large one.
    """
    if device.type == "cuda":
        # max_memory_allocated sorts all 200 statistics of the allocator first.
        peak: int = torch.cuda.memory_stats_as_nested_dict(device)["allocated_bytes"]["all"]["peak"]
        return peak
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
