"""What the steps of a run cost: wall time, the share of it spent waiting for data, memory; logged under `time/`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from runner.engine.batches import TrainBatches

MB = 1e6  # bytes
STEP, SPEED, WAIT, MEMORY = TAGS = (
    "time/step_ms",
    "time/examples_per_second",
    "time/data_wait",
    "time/peak_memory_mb",
)
Batch = tuple[Tensor, Tensor]


class Timing:
    """Times the steps of a loop in laps. A lap begins when the loop asks for its first batch and ends in `lap`.

    So what the loop does between a lap and the next batch, validation and checkpoints, counts in none. The device is
    never waited for: `lap` belongs behind a flush, which waits anyhow. Where the batches are made on a GPU, waiting for
    one is the time to launch that work.
    """

    def __init__(self, batches: TrainBatches, step: int) -> None:
        self._batches, self._step = batches, step
        self._began: float | None = None
        self._waited = 0.0
        if batches.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(batches.device)  # an earlier run in this process may have had more

    def watched(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches of a stream and time the wait for each."""
        asked = perf_counter()
        self._began = asked
        for batch in stream:
            self._waited += perf_counter() - asked
            yield batch
            asked = perf_counter()
            if self._began is None:
                self._began = asked

    def lap(self, step: int) -> dict[str, float]:
        """End a lap after `step` optimizer steps, and return what its steps cost, by tag.

        `time/step_ms` is the mean wall time of a step, `time/data_wait` a share in [0, 1], `time/peak_memory_mb` the
        most so far in 10^6 bytes.
        """
        began = self._began
        assert began is not None, "no batch was asked for since the last lap"
        seconds, waited, steps = perf_counter() - began, self._waited, step - self._step
        examples = self._examples(step) - self._examples(self._step)
        self._began, self._waited, self._step = None, 0.0, step
        return {
            STEP: 1000 * seconds / steps,
            SPEED: examples / seconds,
            WAIT: waited / seconds,
            MEMORY: peak_memory(self._batches.device) / MB,
        }

    def _examples(self, step: int) -> int:
        """Return how many examples the first `step` steps take; the last step of an epoch takes what is left."""
        epochs, steps = divmod(step, self._batches.steps_per_epoch)
        return epochs * len(self._batches.split.labels) + steps * self._batches.batch


def typical(metrics: Path) -> dict[str, float]:
    """Return what the steps of a run usually cost, by tag: medians over its laps, so that a slow start weighs nothing.

    Peak memory is the largest. Of a run in several sessions all count. Nothing for a run without a lap, or whose log
    is gone.
    """
    if not metrics.exists():
        return {}
    with metrics.open(encoding="utf-8") as lines:
        laps = [json.loads(line) for line in lines if '"time/step_ms"' in line and line.endswith("\n")]
    if not laps:
        return {}
    return {tag: median(lap[tag] for lap in laps) for tag in TAGS} | {MEMORY: max(lap[MEMORY] for lap in laps)}


def peak_memory(device: torch.device) -> int:
    """Return the most bytes used so far: of the tensors on a GPU, else of the whole process.

    A process starts with the peak of the one that started it (Linux), so a small run from a large one shows the large.
    """
    if device.type == "cuda":  # max_memory_allocated would sort all of the allocator's 200 numbers first
        peak: int = torch.cuda.memory_stats_as_nested_dict(device)["allocated_bytes"]["all"]["peak"]
        return peak
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
