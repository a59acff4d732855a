"""The output of a running sweep: a live table on a terminal, one line per trial elsewhere."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from runner import user_paths
from runner.engine.logs.console import format_duration
from runner.engine.saving.storage import printable
from runner.errors import escaped
from runner.keys import short_keys
from runner.printing import standard_error, standard_output, write_to
from runner.screen_tables import make_table
from runner.sweeps.fallback_display import FallbackDisplay
from runner.sweeps.outcome import LOG, Ended, folder_of, has_file
from runner.sweeps.swept import format_score, naming_columns
from runner.tasks.job import Job

# Fewest seconds between two drawings
_REDRAW = 0.25
_MAX_REASONS = 20
# Bytes read from the end of a log
_TAIL_BYTES = 2048
_PROGRESS_LINE = re.compile(r"^epoch \d+/\d+  step .*$", re.MULTILINE)
# The columns of the live table beside the swept keys, empty; those that make room for the keys
_COLUMNS = dict.fromkeys((" epoch", " loss", " score", " state", " left"), "")
_OPTIONAL = (" left", " loss", " epoch")
# Lines of the title and around the rows
_AROUND = 5
_PROGRESS_WORD = re.compile(r"(\D+?) (\S+)(?:  |$)")


class Display(Protocol):
    """The display of a running sweep."""

    def trial_ended(self, ended: Ended) -> None:
        """Record a trial that ended."""

    def refresh(self, running: Sequence[Job], waiting: int, *, loaded: bool) -> None:
        """Show the running trials and the number of waiting ones."""

    def close(self) -> None:
        """Stop showing."""


def make_display(count: int, stream: TextIO | None = None, *, swept: Sequence[str] = ()) -> Display:
    """Return the display for a stream, by default standard output.

    Args:
        count: The number of trials, 0 if unknown.
        stream: Where to print.
        swept: The swept keys, which are the columns of a live table.
    """
    stream = stream or standard_output()
    lines = _LineDisplay(count, stream)
    return FallbackDisplay(lambda: _LiveTable(count, stream, swept), lines) if stream.isatty() else lines


class _LineDisplay:
    """One line for each trial that ended: `[3/24] done  0.9712  4.2 s  optim.lr=0.1,seed=0-1a2b3c4d`."""

    def __init__(self, count: int, stream: TextIO) -> None:
        self._count, self._stream, self._seen = count, stream, 0

    def trial_ended(self, ended: Ended) -> None:
        """Write the line."""
        self._seen += 1
        of = f"/{self._count}" if self._count else ""
        words = [f"[{self._seen}{of}]", f"{ended.result.status:<11}", f"{format_score(ended.score):>7}"]
        words.append(f"{ended.seconds:.1f} s" if ended.ran else "already done")
        write_to(self._stream, "  ".join([*words, escaped(ended.name)]) + "\n")

    def refresh(self, running: Sequence[Job], waiting: int, *, loaded: bool) -> None:
        """Do nothing: a pipe has no live table."""

    def close(self) -> None:
        """Do nothing: there is no live table."""


class _LiveTable:
    """A table at the bottom of a terminal: the running trials and the last ones that ended; it needs no thread."""

    def __init__(self, count: int, stream: TextIO, swept: Sequence[str]) -> None:
        from rich.live import Live as RichLive

        from runner.rich_console import make_console

        self._console = make_console(stream)
        self._live = RichLive(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._swept = swept
        self._count, self._over, self._counts = count, list[Ended](), Counter[str]()
        self._ran, self._began, self._drawn = 0, time.monotonic(), -math.inf
        self._loaded = False
        self._live.start()

    def trial_ended(self, ended: Ended) -> None:
        """Record a trial that ended."""
        self._over = [*self._over[-100:], ended]
        self._counts[ended.result.status] += 1
        self._ran += ended.ran

    def refresh(self, running: Sequence[Job], waiting: int, *, loaded: bool) -> None:
        """Draw the table, at most every `_REDRAW` seconds."""
        if loaded and not self._loaded:
            self._loaded, self._began = True, time.monotonic()
        if time.monotonic() - self._drawn >= _REDRAW:
            self._drawn = time.monotonic()
            self._live.update(self._table(running, waiting), refresh=True)

    def close(self) -> None:
        """Remove the table from the terminal."""
        self._live.stop()

    def _table(self, running: Sequence[Job], waiting: int) -> Any:
        height = max(3, self._console.height - 8)
        title = self._title(len(running), waiting)
        rows = [_row_of_ended(ended) for ended in self._over[-height:]] + [_row_of_running(job) for job in running]
        # The last rows, as many as there is room for: a row may take several lines
        while True:
            drawn = self._draw(rows, title)
            excess = len(self._console.render_lines(drawn, pad=False)) - _AROUND - height
            if excess <= 0 or len(rows) < 2:
                return drawn
            rows = rows[min(len(rows) - 1, max(1, excess * len(rows) // (excess + height))) :]

    def _draw(self, rows: Sequence[_Row], title: str) -> Any:
        needed = [{" score": row.cells.get(" score", ""), " state": row.cells[" state"]} for row in rows]
        jobs = [row.job for row in rows]
        names = naming_columns(
            jobs,
            self._swept,
            [job.folder_name.rpartition("-")[0] or job.folder_name for job in jobs],
            needed,
            self._console,
        )
        return make_table(
            [name | _COLUMNS | row.cells for name, row in zip(names, rows, strict=True)],
            self._console,
            keys=list(names[0]) if names else None,
            optional=_OPTIONAL,
            headings=short_keys(self._swept),
            split=False,
            title=title,
        )

    def _title(self, running: int, waiting: int) -> str:
        words = [f"{count} {status}" for status, count in sorted(self._counts.items())]
        words += [f"{running} running", f"{waiting} waiting"] if self._loaded else ["loading torch and the data"]
        words.append(f"of {self._counts.total() + running + waiting}")
        left = _seconds_left(time.monotonic() - self._began, self._ran, running + waiting)
        return "  ".join([*words, *([f"left {format_duration(left)}"] if left is not None else [])])


@dataclass(frozen=True)
class _Row:
    """A row of the live table: the trial, and its cells by column."""

    job: Job
    cells: dict[str, str]


def _row_of_ended(ended: Ended) -> _Row:
    """Return the row of a trial that ended."""
    return _Row(ended.job, {" score": format_score(ended.score), " state": str(ended.result.status)})


def _row_of_running(job: Job) -> _Row:
    """Return the row of a running trial."""
    words = _last_progress(folder_of(job))
    progress = {" epoch": "epoch", " loss": "loss", " score": "val accuracy", " left": "left"}
    cells = {column: words.get(word, "") for column, word in progress.items()}
    return _Row(job, {**cells, " state": "running"})


def show_reasons(bad: Sequence[Ended], stream: TextIO | None = None) -> None:
    """Write to standard error why trials ended early, and where their logs are."""
    stream = stream or standard_error()
    for each in bad[:_MAX_REASONS]:
        write_to(stream, f"{each.result.status}: {escaped(each.name)}: {each.result.reason}\n")
    if len(bad) > _MAX_REASONS:
        write_to(stream, f"... and {len(bad) - _MAX_REASONS} more\n")
    # Hydra's launchers keep their logs elsewhere
    if any(has_file(folder_of(each.job) / LOG) for each in bad):
        write_to(stream, f"logs: {printable(folder_of(bad[0].job).parent / '*' / LOG)}\n")


def _last_progress(folder: Path) -> dict[str, str]:
    """Return the fields of the last progress line of a trial: epoch, step, loss, val loss, left."""
    try:
        with Path(user_paths.full(folder / LOG)).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return {}
    lines = _PROGRESS_LINE.findall(text)
    return dict(_PROGRESS_WORD.findall(lines[-1])) if lines else {}


def _seconds_left(elapsed: float, ran: int, left: int) -> float | None:
    """Return the estimated seconds left, None before the first trial has run."""
    return elapsed / ran * left if ran else None
