"""The buffer of a log: values by step on the device, and their copy to the host, which several logs can share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import Any

from torch import Tensor

from runner.engine.contracts import Numbers
from runner.engine.transfer import to_host

# (step, time in seconds since 1970, values by tag). A tuple, because each step creates one.
_Entry = tuple[int, float, Mapping[str, Any]]
_HostEntry = tuple[int, float, dict[str, Any]]


class Transfer:
    """Copies the pending values of its buffers to the host, with one device-to-host copy for all of them.

    Usually it has one buffer. Runs that train together share one transfer, so that K logs cost one synchronization: the
    first log that is read or flushed copies the values of all logs.
    """

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    @property
    def shared(self) -> bool:
        """True if it has more than one buffer."""
        return len(self.buffers) > 1

    def run(self) -> None:
        """Copy the pending values of all buffers to the host; waits for the device."""
        values = (value for buffer in self.buffers for *_, entry in buffer.pending for value in entry.values())
        on_host = iter(to_host([tensor for value in values for tensor in _tensors(value)]))
        for buffer in self.buffers:
            buffer.receive(on_host)


class Buffer:
    """Stores the values of one log from `add` to `take`.

    Args:
        transfer: Copies the values to the host; shared by the logs of runs that train together.
    """

    def __init__(self, transfer: Transfer) -> None:
        self.pending: list[_Entry] = []
        self._received: list[_HostEntry] = []
        self._transfer = transfer
        transfer.buffers.append(self)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append the values of a step, on the device or on the host."""
        self.pending.append((step, time.time(), values))

    def latest(self, tag: str) -> float | None:
        """Return the last number of a tag in the buffer, or None; may wait for the device."""
        if self._transfer.shared:
            # One copy for all logs instead of one for each.
            self._transfer.run()
        for *_, values in chain(reversed(self.pending), reversed(self._received)):
            if tag in values:
                return float(values[tag])
        return None

    def discard(self, after: int) -> None:
        """Drop the values of all steps later than `after`."""
        self.pending = [entry for entry in self.pending if entry[0] <= after]
        self._received = [entry for entry in self._received if entry[0] <= after]

    def take(self) -> list[_HostEntry]:
        """Copy pending values to the host; remove and return all entries in order."""
        self._transfer.run()
        taken, self._received = self._received, []
        return taken

    def receive(self, on_host: Iterator[Any]) -> None:
        """Move the pending entries to the received ones; `on_host` yields the values of their tensors in order."""
        self._received += [(step, moment, _host_values(values, on_host)) for step, moment, values in self.pending]
        self.pending = []

    def close(self) -> None:
        """Remove this buffer from its transfer."""
        if self in self._transfer.buffers:
            self._transfer.buffers.remove(self)


def _tensors(value: Any) -> Sequence[Tensor]:
    """Return the tensors of a logged value; none for a value that is on the host."""
    return (value,) if isinstance(value, Tensor) else value.tensors if isinstance(value, Numbers) else ()


def _host_values(values: Mapping[str, Any], on_host: Iterator[Any]) -> dict[str, Any]:
    """Return the values of an entry with each tensor replaced by the next of `on_host`, and numbers as floats."""
    result: dict[str, Any] = {}
    for tag, value in values.items():
        if isinstance(value, Tensor):
            result[tag] = next(on_host)
        elif isinstance(value, Numbers):
            result.update(value.to_scalars([next(on_host) for _ in value.tensors]))
        else:
            result[tag] = float(value) if isinstance(value, Real) else value
    return result
