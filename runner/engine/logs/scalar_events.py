"""Events of scalars for many steps at once.

Steps mostly log the same few scalars, so that their events are equal but for the time, the step and the numbers, each
at a fixed place (in protobuf's encoding a double takes 8 bytes and a float 4). One event is built by protobuf, copied
for each step, and the places filled, which is ten times as fast; a test holds the bytes to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runner.engine.logs.sinks import Row, total


def shape(row: Row) -> tuple[str | int, ...] | None:
    """Return what rows share when their events differ in numbers only; none for a row of more than scalars."""
    return (*row.values, varint_size(row.step)) if total(row) is not None else None


def encoded(rows: Sequence[Row], first: Any) -> np.ndarray:
    """Return the events (n, bytes) of rows of one shape, the first of which is the event `first`."""
    events = np.tile(np.frombuffer(first.SerializeToString(), dtype=np.uint8), (len(rows), 1))
    events[:, 1:9] = raw(np.array([row.time for row in rows]), "<f8")
    steps, size = np.array([row.step for row in rows]), varint_size(first.step)
    for place in range(size):  # 7 bits a byte, lowest first, the eighth says that more follow
        events[:, 10 + place] = (steps >> 7 * place) & 127 | 128 * (place < size - 1)
    end = events.shape[1]
    for value, numbers in zip(first.summary.value[::-1], columns(rows)[::-1], strict=True):
        events[:, end - 4 : end] = raw(numbers, "<f4")
        end -= 1 + varint_size(value.ByteSize()) + value.ByteSize()
    return events


def columns(rows: Sequence[Row]) -> np.ndarray:
    """Return the numbers of each tag (tags, n)."""
    return np.array([list(row.values.values()) for row in rows]).T


def raw(numbers: np.ndarray, kind: str) -> np.ndarray:
    """Return numbers (n,) as the bytes of a type (n, size); what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers).astype(kind)[:, None].view(np.uint8)


def varint_size(number: int) -> int:
    """Return the bytes of a whole number in protobuf's encoding; a step of zero is left out."""
    return -(-number.bit_length() // 7)
