"""TensorBoard's event file, written by us: synchronously, with no thread, one `Event` for all values of a step."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runner.engine.logs.growing import Growing
from runner.engine.logs.records import framed
from runner.engine.logs.scalar_events import encoded, shape
from runner.engine.logs.sinks import Row
from runner.engine.saving import storage

FORM = re.compile(r"events\.out\.tfevents\.(?P<time>\d{10})\.[^/\0]+\.\d+\.(?P<number>\d+)")


class EventFile:
    """A new event file, opened with `SessionLog.START` at `step`: the first step that it may hold.

    TensorBoard forgets what a run said about that step and later ones, but only from the second START on, so there is
    always one. The tensorboard package is imported here: training without logs does not pay for it.
    """

    def __init__(self, path: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._event, self.file = Event, Growing(path)
        now = time.time()
        version = Event(wall_time=now, file_version="brain.Event:2")
        start = Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
        with storage.refusing(path):
            self.file.append(record(version) + record(start))

    def write(self, rows: Sequence[Row]) -> None:
        """Append one event per row, scalars as they are, the rest in the form its plugin reads."""
        full = [row for row in rows if row.values]
        alike: dict[object, list[int]] = {}
        for place, row in enumerate(full):
            alike.setdefault(shape(row), []).append(place)
        records = [b""] * len(full)
        for form, places in alike.items():
            for place, made in zip(places, self._records(form, [full[place] for place in places]), strict=True):
                records[place] = made
        self.file.append(b"".join(records))

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _of(self, row: Row) -> Any:
        event = self._event(wall_time=row.time, step=row.step)
        add = event.summary.value.add
        for tag, value in row.values.items():
            if type(value) is float:
                add(tag=tag, simple_value=value)
            else:
                event.summary.value.extend(rich(tag, value))
        return event

    def _records(self, form: object, rows: Sequence[Row]) -> list[bytes]:
        if form is None or len(rows) == 1:
            return [record(self._of(row)) for row in rows]
        return framed(encoded(rows, self._of(rows[0])))


def record(event: Any) -> bytes:
    """Return the record of one event."""
    return framed(np.frombuffer(event.SerializeToString(), dtype=np.uint8)[None])[0]


def rich(tag: str, value: Any) -> Iterable[Any]:
    """Return the `Summary.Value`s of a text, an array or a ready summary."""
    from runner.engine.logs import summaries

    if isinstance(value, str):
        return [summaries.text(tag, value)]
    if isinstance(value, np.ndarray):
        return [summaries.histogram(tag, value) if value.ndim == 1 else summaries.image(tag, value)]
    if isinstance(value, bytes):
        return [summaries.encoded(tag, value)]
    values: Iterable[Any] = value.value
    return values


def event_files(folder: Path) -> list[str]:
    """Return the names of a run's event files, in order of creation, which is also that of their names."""
    return sorted(path.name for path in folder.iterdir() if FORM.fullmatch(path.name))


def next_name(folder: Path) -> str:
    """Return a name in TensorBoard's form that sorts after those there are, even where the clock went back.

    TensorBoard reads the files of a run in order of name, and never goes back to an earlier one.
    """
    taken = event_files(folder)
    last = FORM.fullmatch(taken[-1]) if taken else None
    moment = max(int(time.time()), int(last["time"]) + 1 if last else 0)
    number = int(last["number"]) + 1 if last else 0
    return f"events.out.tfevents.{moment:010d}.{socket.gethostname()}.{os.getpid()}.{number}"
