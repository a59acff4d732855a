"""TensorBoard event files: one `Event` per step with all its values, written synchronously and without a thread.

A file is a sequence of TFRecords: a length, its checksum, the data, their checksum. TensorBoard's own writer computes
the checksums byte by byte in Python: 10 us for one loss, 10 ms for an image of 100 KB. This module computes them with a
lookup table for many records at once.

Most steps log the same few scalars, so that their events differ only in the time, the step and the numbers, which have
fixed byte positions. protobuf encodes the first such event, and the others are copies with other bytes at these
positions. That is ten times as fast. Tests compare the bytes with those of TensorBoard's writer.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runner import user_paths
from runner.engine.logs import summaries
from runner.engine.logs.sinks import AppendOnlyFile, Row, sum_of_scalars
from runner.engine.saving import storage
from runner.errors import StorageError

FILE_NAME = re.compile(r"events\.out\.tfevents\.(?P<time>\d{10})\.[^/\0]+\.\d+\.(?P<number>\d+)")
# Bytes of a record that one table lookup covers.
CHUNK = 512
_ONES = np.uint32(0xFFFFFFFF)


class EventFile:
    """A sink that writes a new event file, which begins with `SessionLog.START`.

    On a START, TensorBoard discards the values that earlier files of the run have for its step and later ones. It
    ignores the first START of a run, so every file has one.

    Args:
        path: The file.
        step: The first step that the file may hold.
    """

    def __init__(self, path: Path, step: int) -> None:
        # Imported here, because a process that writes no logs does not need the tensorboard package.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._event, self.file = Event, AppendOnlyFile(path)
        now = time.time()
        version = Event(wall_time=now, file_version="brain.Event:2")
        start = Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
        with storage.convert_os_errors(path):
            self.file.append(_record(version) + _record(start))

    def write(self, rows: Sequence[Row]) -> None:
        """Append one event per row; values that are not scalars get the format of their TensorBoard plugin."""
        full = [row for row in rows if row.values]
        by_layout: dict[object, list[int]] = {}
        for position, row in enumerate(full):
            by_layout.setdefault(_layout(row), []).append(position)
        records = [b""] * len(full)
        for layout, positions in by_layout.items():
            encoded = self._records(layout, [full[position] for position in positions])
            for position, record in zip(positions, encoded, strict=True):
                records[position] = record
        self.file.append(b"".join(records))

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _event_of(self, row: Row) -> Any:
        """Return the `Event` of a row."""
        event = self._event(wall_time=row.time, step=row.step)
        add = event.summary.value.add
        for tag, value in row.values.items():
            if type(value) is float:
                add(tag=tag, simple_value=value)
            else:
                event.summary.value.extend(_summary_values(tag, value))
        return event

    def _records(self, layout: object, rows: Sequence[Row]) -> list[bytes]:
        """Return the TFRecords of rows with the same layout."""
        if layout is None or len(rows) == 1:
            return [_record(self._event_of(row)) for row in rows]
        return to_tfrecords(_scalar_events(rows, self._event_of(rows[0])))


def event_files(folder: Path) -> list[str]:
    """Return the names of the event files of a run in order of creation, which is also their alphabetical order."""
    return [name for name in user_paths.listed(folder, error=StorageError) if FILE_NAME.fullmatch(name)]


def next_name(folder: Path) -> str:
    """Return a name for a new event file that sorts after the existing ones, even if the clock was set back.

    TensorBoard reads the files of a run in alphabetical order and never returns to an earlier one.
    """
    existing = event_files(folder)
    last = FILE_NAME.fullmatch(existing[-1]) if existing else None
    seconds = max(int(time.time()), int(last["time"]) + 1 if last else 0)
    number = int(last["number"]) + 1 if last else 0
    return f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{os.getpid()}.{number}"


def _summary_values(tag: str, value: Any) -> Iterable[Any]:
    """Return the `Summary.Value`s of a text, an array, a PNG or a `Summary`."""
    if isinstance(value, str):
        return [summaries.text(tag, value)]
    if isinstance(value, np.ndarray):
        return [summaries.histogram(tag, value) if value.ndim == 1 else summaries.image(tag, value)]
    if isinstance(value, bytes):
        return [summaries.encoded(tag, value)]
    values: Iterable[Any] = value.value
    return values


def _layout(row: Row) -> tuple[str | int, ...] | None:
    """Return a key that is equal for rows whose encoded events have the same layout; None unless all are scalars."""
    return (*row.values, _varint_size(row.step)) if sum_of_scalars(row) is not None else None


def _scalar_events(rows: Sequence[Row], first: Any) -> np.ndarray:
    """Return the encoded events (n, length) uint8 of n rows with the same layout.

    Args:
        rows: The rows.
        first: The event of the first row.
    """
    events = np.tile(np.frombuffer(first.SerializeToString(), dtype=np.uint8), (len(rows), 1))
    # Byte 0 is the key of the wall time, byte 9 that of the step.
    events[:, 1:9] = _to_bytes(np.array([row.time for row in rows]), "<f8")
    steps, size = np.array([row.step for row in rows]), _varint_size(first.step)
    for position in range(size):
        # A varint has 7 bits per byte, lowest bits first. The eighth bit is set if more bytes follow.
        events[:, 10 + position] = (steps >> 7 * position) & 127 | 128 * (position < size - 1)
    # The values are at the end of the event, each with its float32 in the last four bytes.
    end = events.shape[1]
    columns = np.array([list(row.values.values()) for row in rows]).T
    for value, numbers in zip(first.summary.value[::-1], columns[::-1], strict=True):
        events[:, end - 4 : end] = _to_bytes(numbers, "<f4")
        end -= 1 + _varint_size(value.ByteSize()) + value.ByteSize()
    return events


def _to_bytes(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Return numbers (n,) as the bytes (n, size) of a dtype; numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers).astype(dtype)[:, None].view(np.uint8)


def _varint_size(number: int) -> int:
    """Return the number of bytes of an integer as a protobuf varint; 0 for zero, which protobuf omits."""
    return -(-number.bit_length() // 7)


def _record(event: Any) -> bytes:
    """Return the TFRecord of one event."""
    return to_tfrecords(np.frombuffer(event.SerializeToString(), dtype=np.uint8)[None])[0]


def to_tfrecords(records: np.ndarray) -> list[bytes]:
    """Return n TFRecords of data of the same length, (n, length) uint8."""
    count, length = records.shape
    head = np.frombuffer(struct.pack("<Q", length), dtype=np.uint8)[None]
    heads = np.broadcast_to(np.concatenate([head, _checksum(head)], axis=1), (count, 12))
    whole = np.concatenate([heads, records, _checksum(records)], axis=1)
    data, size = whole.tobytes(), whole.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]


def _checksum(records: np.ndarray) -> np.ndarray:
    """Return the masked CRC-32C of each record as TFRecord stores it, (n, 4) uint8."""
    sums = crc32c(records)
    masked = ((sums >> np.uint32(15)) | (sums << np.uint32(17))) + np.uint32(0xA282EAD8)
    return masked.astype("<u4")[:, None].view(np.uint8)


def crc32c(records: np.ndarray) -> np.ndarray:
    """Return the CRC-32C (Castagnoli) of each record (n, length) uint8, as (n,) uint32.

    The checksum is linear: that of a chunk is the XOR of the contributions of its bytes, and the contribution of a byte
    depends on its value and its distance from the end of the chunk.
    """
    sums = np.full(len(records), _ONES)
    for start in range(0, records.shape[1], CHUNK):
        chunk = records[:, start : start + CHUNK]
        distance = np.arange(chunk.shape[1])[::-1]
        sums = _advance(sums, len(distance)) ^ np.bitwise_xor.reduce(_table()[distance, chunk], axis=1)
    return sums ^ _ONES


def _advance(sums: np.ndarray, length: int) -> np.ndarray:
    """Return running checksums after `length` more zero bytes."""
    after = sums >> np.uint32(8 * length) if length < 4 else np.zeros_like(sums)
    for position in range(min(length, 4)):
        after = after ^ _table()[length - 1 - position, (sums >> np.uint32(8 * position)) & np.uint32(255)]
    return after


@functools.cache
def _table() -> np.ndarray:
    """Return the contribution of each byte value at each distance from the end of a chunk, (CHUNK, 256) uint32."""
    table = np.zeros((CHUNK, 256), dtype=np.uint32)
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, (row >> 1) ^ np.uint32(0x82F63B78), row >> 1)
    table[0] = row
    for distance in range(1, CHUNK):
        table[distance] = (table[distance - 1] >> 8) ^ row[table[distance - 1] & 255]
    return table
