"""The thread that follows `metrics.jsonl` and gives its rows to a tracker.

The file is the queue: a slow tracker leaves rows in it, and reads them later. At most `_CHUNK` bytes of rows are in
memory. Nothing in the training loop knows of the thread.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from runner.engine.logs.sinks import METRICS, read_rows
from runner.errors import Locked, one_line, short_reason
from runner.printing import write_stderr
from runner.trackers.contract import TrackedRow, TrackedRun, Tracker
from runner.trackers.record import Record

# Seconds between two looks at the file
_INTERVAL = 1.0
# Bytes of the file that are read at once
_CHUNK = 1 << 18
# Seconds between a failure and the next attempt; the last one repeats
_PAUSES = (1, 5, 30, 120)


@dataclass(frozen=True)
class End:
    """The end of a run: its status, whether nothing is left to train, and its final scores by tag."""

    status: str
    finished: bool
    scores: Mapping[str, float] = field(default_factory=dict)


class Follower:
    """Gives the rows of a run to a tracker, in a thread that ends with the process at the latest.

    Args:
        name: The option's name, for messages and the record.
        tracker: Gets the rows.
        run: What the tracker is told about the run.
        record: Keeps which rows the tracker has.
    """

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun, record: Record) -> None:
        self._name, self._tracker, self._run, self._record = name, tracker, run, record
        self._path = run.folder / METRICS
        self._end: End | None = None
        self._ended = threading.Event()
        self.failed = False  # the last attempt has failed
        self._warned = self._abandoned = False
        self._after = -1
        # A hanging tracker must not keep the process alive
        self._thread = threading.Thread(target=self._work, name=f"tracker={name}", daemon=True)
        self._thread.start()

    def end(self, end: End) -> None:
        """Say that all rows are in the file and how the run ended; returns at once."""
        self._end = end
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait until all rows are sent, or no attempt is left; return False if that takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def missing(self) -> int:
        """Return the number of rows that the tracker has not acknowledged."""
        with suppress(OSError):
            return sum(1 for rows, _ in self._chunks(0) for step, _ in rows if step > self._after)
        return 0

    def abandon(self) -> None:
        """Close the tracker, whatever it is doing; the record must be closed. What fails then is no news."""
        self._warned = self._abandoned = True
        with suppress(Exception):
            self._tracker.close()

    def _work(self) -> None:
        """Send all rows; after a failure try again, once more after the end of the run."""
        for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
            is_last = self._ended.is_set()
            # A plugin may raise anything, and what leaves the thread would be printed
            try:
                self._send_all()
            except Locked:
                return
            except BaseException as error:
                self.failed = True
                self._warn(error)
            else:
                self.failed = False
                return
            finally:
                with suppress(BaseException):
                    self._tracker.close()
            if is_last or self._abandoned:
                return
            self._ended.wait(pause)

    def _send_all(self) -> None:
        """Send rows until the run has ended and all are sent, then how it ended."""
        entry = self._record.entry(self._name)
        name = entry.id or secrets.token_hex(8)
        if entry.id is None or entry.finished:
            # Before the start, so that a run killed during it does not leave a second run there
            self._record.change(self._name, id=name, finished=False)
        self._tracker.start(replace(self._run, id=name))
        self._after = -1 if self._tracker.from_first_row else entry.step
        position, has_ended, pause = 0, False, 0.0
        while not has_ended:
            # Asked before reading, so that what is written until the end is read
            has_ended, pause = self._ended.wait(pause), _INTERVAL
            for rows, after in self._chunks(position):
                self._send([row for row in rows if row[0] > self._after])
                position = after
        assert self._end
        self._tracker.finish(self._end.status, self._end.scores)
        self._record.change(self._name, finished=self._end.finished)

    def _send(self, rows: Sequence[TrackedRow]) -> None:
        """Send rows and record that the tracker has them."""
        if rows:
            self._tracker.log(rows)
            self._record.change(self._name, step=rows[-1][0])
            self._after = rows[-1][0]

    def _chunks(self, position: int) -> Iterator[tuple[list[TrackedRow], int]]:
        """Yield (rows, position after them) of the complete lines after a position in the file."""
        while True:
            rows, after = read_rows(self._path, position, _CHUNK)
            if after == position:
                return
            yield rows, (position := after)

    def _warn(self, error: BaseException) -> None:
        """Print one warning for all failures of this session of the run."""
        if not self._warned:
            step = max(0, self._after)
            write_warning(f"tracker={self._name}: failed after step {step} ({short_reason(error)}); the run goes on")
        self._warned = True


def write_warning(line: str) -> None:
    """Print a warning to standard error."""
    write_stderr(f"runner: warning: {one_line(line)}\n")
