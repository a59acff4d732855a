"""TensorBoard event files: one `Event` per step with all its values, written synchronously and without a thread.

Most steps log the same few scalars, so that their events differ only in the time, the step and the numbers, which have
fixed byte positions. protobuf encodes the first such event, and the others are copies with other bytes at these
positions. That is ten times as fast. Tests compare the bytes with those of TensorBoard's writer.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from runner import user_paths
from runner.decoration import decorative
from runner.engine.logs import summaries
from runner.engine.logs.board_tags import board_tag
from runner.engine.logs.sinks import AppendOnlyFile, Row, sum_of_scalars
from runner.engine.logs.tfrecords import to_tfrecords
from runner.engine.saving import storage
from runner.errors import StorageError

FILE_NAME = re.compile(r"events\.out\.tfevents\.(?P<time>\d{10})\.[^/\0]+\.\d+\.(?P<number>\d+)")


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
        self._failed: set[str] = set()  # tags that could not be encoded
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
                add(tag=board_tag(tag), simple_value=value)
            else:
                event.summary.value.extend(self._values_of(tag, value))
        return event

    def _values_of(self, tag: str, value: Any) -> Iterable[Any]:
        """Return the `Summary.Value`s of a value; none, and one line for its tag, if it cannot be encoded."""
        with suppress(Exception) if tag in self._failed else decorative(f"TensorBoard's {tag}: not written"):
            return _summary_values(tag, value)
        self._failed.add(tag)
        return []

    def _records(self, layout: object, rows: Sequence[Row]) -> list[bytes]:
        """Return the TFRecords of rows with the same layout."""
        if layout is None or len(rows) == 1:
            return [_record(self._event_of(row)) for row in rows]
        return to_tfrecords(_scalar_events(rows, self._event_of(rows[0])))


def append_values(folder: Path, step: int, values: Mapping[str, Any]) -> None:
    """Append an event to the newest event file of a run whose log is closed; do nothing if the run has none."""
    if not (names := event_files(folder)):
        return
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(wall_time=time.time(), step=step)
    for tag, value in values.items():
        event.summary.value.extend(_summary_values(tag, value))
    file = AppendOnlyFile(folder / names[-1])
    try:
        with storage.convert_os_errors(file.path):
            file.append(_record(event))
    finally:
        file.close()


def is_available() -> bool:
    """Return True if event files can be written; else print why TensorBoard's modules cannot be imported."""
    with decorative("TensorBoard's event file: not written"):
        import tensorboard.compat.proto.event_pb2
        import tensorboard.plugins.hparams.plugin_data_pb2  # noqa: F401

        return True
    return False


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


def _summary_values(logged_tag: str, value: Any) -> Iterable[Any]:
    """Return the `Summary.Value`s of a text, an array, a PNG or a `Summary`."""
    tag = board_tag(logged_tag)
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
