"""Cost of the steps of a run: wall time, time waiting for data, and memory; logged under `time/`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from runner import user_paths
from runner.engine.batches import TrainBatches
from runner.engine.saving.storage import convert_os_errors
from runner.errors import StorageError

_MB = 1e6  # bytes
STEP, SPEED, WAIT, MEMORY = TAGS = (
    "time/step_ms",
    "time/examples_per_second",
    "time/data_wait",
    "time/peak_memory_mb",
)
_Batch = tuple[Tensor, Tensor]


class _Lap(NamedTuple):
    """The number and the wall time of some consecutive steps."""

    steps: int
    seconds: float

    @property
    def step_ms(self) -> float:
        """The mean wall time of a step in milliseconds."""
        return 1000 * self.seconds / self.steps


class Stopwatch:
    """Measures laps of steps with the host's clock; paused from `stop` until the next `start`.

    Args:
        step: Optimizer steps done before the first lap.
    """

    def __init__(self, step: int = 0) -> None:
        self._step = step
        self._began: float | None = None

    def start(self, now: float) -> None:
        """Start a lap at the time `now` (`perf_counter`), unless one is running."""
        if self._began is None:
            self._began = now

    def stop(self, step: int) -> _Lap:
        """End the lap after `step` optimizer steps and return it."""
        assert self._began is not None, "no lap is running"
        lap = _Lap(step - self._step, perf_counter() - self._began)
        self._began, self._step = None, step
        return lap

    def skip(self, seconds: float) -> None:
        """Leave seconds out of the lap under way, if there is one."""
        if self._began is not None:
            self._began += seconds

    def split(self, step: int) -> _Lap | None:
        """End a lap and begin the next one at the same moment; None the first time, when no lap was under way."""
        now = perf_counter()
        lap = None if self._began is None else _Lap(step - self._step, now - self._began)
        self._began, self._step = now, step
        return lap


class Timing:
    """Times the steps of the training loop, without validation and checkpoints.

    A lap starts when the loop requests a batch and ends with a call of `lap`. Time between the end of a lap and the
    next request is not measured. This class does not synchronize with the device, so call `lap` after a flush of the
    log, which does. If batches are made on a GPU, the data wait is the time to launch the kernels.

    Args:
        batches: The batches of the loop; gives the number of examples of a step, and the device.
        step: Optimizer steps done so far.
    """

    def __init__(self, batches: TrainBatches, step: int) -> None:
        self._batches, self._step = batches, step
        self._stopwatch = Stopwatch(step)
        self._waited = 0.0
        if batches.device.type == "cuda":
            # An earlier run in this process may have had a higher peak.
            torch.cuda.reset_peak_memory_stats(batches.device)

    def timed(self, stream: Iterator[_Batch]) -> Iterator[_Batch]:
        """Yield the batches of a stream and measure the wait for each."""
        asked = perf_counter()
        self._stopwatch.start(asked)
        for batch in stream:
            self._waited += perf_counter() - asked
            yield batch
            asked = perf_counter()
            self._stopwatch.start(asked)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the body out of the lap."""
        began = perf_counter()
        yield
        self._stopwatch.skip(perf_counter() - began)

    def lap(self, step: int) -> dict[str, float]:
        """End the lap after `step` optimizer steps and return its cost per step.

        Returns:
            `time/step_ms`, the mean wall time of a step in milliseconds; `time/examples_per_second`; `time/data_wait`,
            the share of the time in [0, 1] spent waiting for batches; `time/peak_memory_mb`, the peak so far in 10^6
            bytes.
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
        """Return the number of examples of the first `step` steps; the last step of an epoch may have fewer."""
        epochs, steps = divmod(step, self._batches.steps_per_epoch)
        return epochs * self._batches.examples_per_epoch + steps * self._batches.batch


def median_cost(metrics: Path) -> dict[str, float]:
    """Return the cost of a run's steps from its `metrics.jsonl`.

    Returns:
        The median of each `time/` tag over all laps, which ignores a slow start, and the largest peak memory. Empty if
        the file is missing or has no lap.
    """
    if not user_paths.is_file(metrics, error=StorageError):
        return {}
    with convert_os_errors(metrics), Path(user_paths.full(metrics)).open(encoding="utf-8") as lines:
        laps = [json.loads(line) for line in lines if '"time/step_ms"' in line and line.endswith("\n")]
    if not laps:
        return {}
    return {tag: median(lap[tag] for lap in laps) for tag in TAGS} | {MEMORY: max(lap[MEMORY] for lap in laps)}


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the tensors on a CUDA device, else of the whole process.

    On Linux a forked process starts with the peak of its parent. On MPS it is the current memory of the driver.
    """
    if device.type == "cuda":
        # torch.cuda.max_memory_allocated is slower: it sorts all 200 statistics of the allocator.
        peak: int = torch.cuda.memory_stats_as_nested_dict(device)["allocated_bytes"]["all"]["peak"]
        return peak
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
