"""What torch's profiler recorded, as figures per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# A GPU's driver names its waits; cudaDeviceSynchronize is left out, because the profiler itself ends with one.
WAITS = {"aten::_local_scalar_dense": False, "cudaStreamSynchronize": True, "cudaEventSynchronize": True}


@dataclass(frozen=True)
class Recording:
    """The averages of a profiled stretch of `steps` steps: a row of torch's `key_averages()` per name.

    On a GPU the time that counts is the device's, else the host's; always an operation's own, without what it calls.
    """

    rows: Sequence[Any]
    steps: int
    on_gpu: bool

    @cached_property
    def operations(self) -> list[Any]:
        """What the host called, most expensive first; named stretches of Python (`ProfilerStep*`) are none."""
        found = [row for row in self.rows if row.device_type.name == "CPU" and not row.is_user_annotation]
        return sorted(found, key=self.own, reverse=True)

    def own(self, row: Any) -> float:
        """Return an operation's own time per step, in milliseconds."""
        return self.device(row) if self.on_gpu else self.host(row)

    def host(self, row: Any) -> float:
        """Return the milliseconds that the host spends in an operation itself, per step."""
        return float(row.self_cpu_time_total) / 1000 / self.steps

    def device(self, row: Any) -> float:
        """Return the milliseconds that the GPU spends on the kernels of an operation itself, per step."""
        return float(row.self_device_time_total) / 1000 / self.steps

    @property
    def milliseconds(self) -> float:
        """The wall time of a step."""
        total = sum(row.cpu_time_total for row in self.rows if row.key == "ProfilerStep*" and row.cpu_time_total)
        return float(total) / 1000 / self.steps

    @property
    def calls(self) -> float:
        """The calls of torch's operations per step, those that they make themselves included."""
        return sum(int(row.count) for row in self.operations if row.key.startswith("aten::")) / self.steps

    @property
    def busy(self) -> float:
        """The share of the wall time in [0, 1] that the operations take: of the GPU's time where there is one."""
        return sum(map(self.own, self.operations)) / self.milliseconds

    @property
    def waits(self) -> float:
        """How often a step makes the host wait for the device; on the CPU: reads one value of a tensor."""
        return sum(int(row.count) for row in self.operations if WAITS.get(row.key) == self.on_gpu) / self.steps


def table(recording: Recording, most: int) -> list[dict[str, str]]:
    """Return a row for each of the most expensive operations."""
    total = sum(map(recording.own, recording.operations))
    return [
        {
            "operation": row.key,
            "calls per step": f"{row.count / recording.steps:>14.4g}",
            **({"GPU, ms per step": f"{recording.device(row):>16.3f}"} if recording.on_gpu else {}),
            "own time, ms per step": f"{recording.host(row):>21.3f}",
            "share": f"{recording.own(row) / total:>6.1%}",
        }
        for row in recording.operations[:most]
    ]
