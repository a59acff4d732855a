"""Probes of time and memory, measured by `engine.timing`; comparisons of runs ignore their tags, `time/*`."""

from __future__ import annotations

from typing import Annotated

import torch

from runner.engine.contracts import Probe, Watch, Watched
from runner.engine.timing import Stopwatch, peak_memory
from runner.registry import register
from runner.relations import InRun
from runner.schema import PositiveInt

# Bytes per MiB
_MIB = 2**20
_HOST = torch.device("cpu")


@register("probe")
def throughput(*, every: Annotated[PositiveInt, InRun(end=True)]) -> Probe:
    """Return a probe of the speed since its last measurement, validation and checkpoints included.

    Logs `time/images_per_second` and `time/milliseconds_per_step`, but nothing at its first measurement. The tags
    `time/step_ms` and `time/examples_per_second`, which every run logs, leave out validation and checkpoints.
    """
    stopwatch = Stopwatch()

    def watch(watched: Watched) -> Watch:
        lap = stopwatch.split(watched.step)
        yield
        if lap is None:
            return {}
        images = len(watched.images) * lap.steps
        return {
            "time/images_per_second": torch.tensor(images / lap.seconds),
            "time/milliseconds_per_step": torch.tensor(lap.step_ms),
        }

    return Probe(every, watch)


@register("probe")
def memory(*, every: PositiveInt) -> Probe:
    """Return a probe of the peak memory so far, in MiB.

    Logs `time/memory_host`, and on a GPU `time/memory_device`.
    """

    def watch(watched: Watched) -> Watch:
        yield
        devices = {"host": _HOST, **({"device": watched.images.device} if watched.images.is_cuda else {})}
        return {f"time/memory_{name}": torch.tensor(peak_memory(device) / _MIB) for name, device in devices.items()}

    return Probe(every, watch)
