"""What the step costs the machine; tags under `time/`, because no two runs agree on them."""

from __future__ import annotations

import resource
import sys
import time

import torch

from runner.engine.contracts import Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt

MIB = 2**20


@register("probe")
def throughput(*, every: PositiveInt) -> Probe:
    """Return a probe of the speed since the last measurement, validation and all else included.

    `time/images_per_second` and `time/milliseconds_per_step`, by the host's clock; nothing the first time.
    """
    marks: list[tuple[int, float]] = []

    def watch(watched: Watched) -> Watch:
        marks.append((watched.step, time.perf_counter()))
        yield
        if len(marks) < 2:
            return {}
        (first, start), (last, end) = marks[-2:]
        del marks[:-1]
        each = (end - start) / (last - first)
        speed = {"images_per_second": len(watched.images) / each, "milliseconds_per_step": 1000 * each}
        return {f"time/{name}": torch.tensor(value) for name, value in speed.items()}

    return Probe(every, watch)


@register("probe")
def memory(*, every: PositiveInt) -> Probe:
    """Return a probe of the most memory used so far, in MiB: `time/memory_host`, and on a GPU `time/memory_device`."""

    def watch(watched: Watched) -> Watch:
        yield
        unit = 1 if sys.platform == "darwin" else 1024  # what the system counts in
        found = {"time/memory_host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB}
        if watched.images.is_cuda:
            found["time/memory_device"] = torch.cuda.max_memory_allocated(watched.images.device) / MIB
        return {tag: torch.tensor(value) for tag, value in found.items()}

    return Probe(every, watch)
