"""The output of a sweep: a live table on a terminal, one line per trial elsewhere, and a final table."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from runner import user_paths
from runner.engine.logs.console import format_duration
from runner.engine.monitor import Monitor
from runner.engine.saving.storage import printable
from runner.errors import escaped
from runner.printing import standard_error, standard_output, write_to
from runner.sweeps.outcome import LOG, Ended, folder_of, has_file
from runner.tasks.job import Job

# Fewest seconds between two drawings
_REDRAW = 0.25
# Most rows of the final table
_MAX_ROWS = 60
_MAX_REASONS = 20
# The columns of the live table beside the trial, with their widths
_COLUMNS = {"epoch": 9, "loss": 6, "score": 6, "state": 11, "left": 7}
_SPACE, _EDGES = 3, 2
_NARROW = 24
# Bytes read from the end of a log
_TAIL_BYTES = 2048
_PROGRESS_LINE = re.compile(r"^epoch \d+/\d+  step .*$", re.MULTILINE)
_PROGRESS_WORD = re.compile(r"(\D+?) (\S+)(?:  |$)")


class Display(Protocol):
    """The display of a running sweep."""

    def trial_ended(self, ended: Ended) -> None:
        """Record a trial that ended."""

    def refresh(self, running: Sequence[Job], waiting: int, *, loaded: bool) -> None:
        """Show the running trials and the number of waiting ones."""

    def close(self) -> None:
        """Stop showing."""


def make_display(count: int, stream: TextIO | None = None) -> Display:
    """Return the display for a stream, by default standard output; `count` is the number of trials, 0 if unknown."""
    stream = stream or standard_output()
    return _LiveTable(count, stream) if stream.isatty() else _LineDisplay(count, stream)


class _LineDisplay:
    """One line for each trial that ended: `[3/24] done  0.9712  4.2 s  optim.lr=0.1,seed=0-1a2b3c4d`."""

    def __init__(self, count: int, stream: TextIO) -> None:
        self._count, self._stream, self._seen = count, stream, 0

    def trial_ended(self, ended: Ended) -> None:
        """Write the line."""
        self._seen += 1
        of = f"/{self._count}" if self._count else ""
        words = [f"[{self._seen}{of}]", f"{ended.result.status:<11}", f"{_format_score(ended.score):>7}"]
        words.append(f"{ended.seconds:.1f} s" if ended.ran else "already done")
        write_to(self._stream, "  ".join([*words, escaped(ended.name)]) + "\n")

    def refresh(self, running: Sequence[Job], waiting: int, *, loaded: bool) -> None:
        """Do nothing: a pipe has no live table."""

    def close(self) -> None:
        """Do nothing: there is no live table."""


class _LiveTable:
    """A table at the bottom of a terminal: the running trials and the last ones that ended; it needs no thread."""

    def __init__(self, count: int, stream: TextIO) -> None:
        from rich.live import Live as RichLive

        from runner.rich_console import make_console

        self._console = make_console(stream)
        self._live = RichLive(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
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
        room = max(3, self._console.height - 7)
        running = running[: room - 1]
        rows = [
            {"trial": ended.name, "score": _format_score(ended.score), "state": ended.result.status.value}
            for ended in self._over[-max(1, room - len(running)) :]
        ]
        for job in running:
            words = _last_progress(folder_of(job))
            shown = {"epoch": "epoch", "loss": "loss", "score": "val accuracy", "left": "left"}
            found = {name: words.get(word, "") for name, word in shown.items()}
            rows.append({"trial": job.folder_name, **found, "state": "running"})
        names, width = _that_fit(self._console.width)
        table = _trial_table(names, title=self._title(len(running), waiting))
        for row in rows:
            name = _cut_in_the_middle(_without_hash(row["trial"]), width)
            table.add_row(name, *(row.get(each, "") for each in names))
        return table

    def _title(self, running: int, waiting: int) -> str:
        words = [f"{count} {status}" for status, count in sorted(self._counts.items())]
        words += [f"{running} running", f"{waiting} waiting"] if self._loaded else ["loading torch and the data"]
        words.append(f"of {self._counts.total() + running + waiting}")
        left = _seconds_left(time.monotonic() - self._began, self._ran, running + waiting)
        return "  ".join([*words, *([f"left {format_duration(left)}"] if left is not None else [])])


def _trial_table(names: Sequence[str], *, title: str) -> Any:
    """Return an empty table: a trial column, which shrinks on narrow terminals, then the given columns."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, expand=False
    )
    table.add_column("trial", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in names:
        table.add_column(name, justify="left" if name in ("state", "status") else "right", no_wrap=True)
    return table


def _that_fit(width: int) -> tuple[list[str], int]:
    """Return the columns that fit on a terminal beside the trial's name, and the width of that; scores always stay."""
    names, width = list(_COLUMNS), width - _EDGES
    for dispensable in ("left", "epoch", "loss"):
        room = width - sum(_COLUMNS[name] + _SPACE for name in names)
        if room >= _NARROW:
            break
        names.remove(dispensable)
    return names, max(_NARROW, width - sum(_COLUMNS[name] + _SPACE for name in names))


def _cut_in_the_middle(name: str, width: int) -> str:
    """Return a name that is too long without its middle, because trials differ at both ends."""
    if len(name) <= width:
        return name
    start = (width - 1) // 2
    return f"{name[:start]}…{name[len(name) - (width - 1 - start) :]}"


def _without_hash(name: str) -> str:
    """Return a trial's folder name without the hash."""
    return name.rpartition("-")[0] or name


def _format_score(score: float) -> str:
    """Return a score with four decimals, empty for nan."""
    return "" if math.isnan(score) else f"{score:.4f}"


def show_final_table(ended: Sequence[Ended], monitor: str, stream: TextIO | None = None) -> None:
    """Write a table of a sweep's trials with status, score and seconds."""
    from runner.rich_console import make_console

    rows = list(ended)
    if len(rows) > _MAX_ROWS:
        rows = sorted(rows, key=lambda each: _sort_key(each, monitor))[:_MAX_ROWS]
    table = _trial_table(
        [monitor, "status", "seconds"], title="" if len(rows) == len(ended) else f"the best {_MAX_ROWS}"
    )
    table.columns[0].no_wrap, table.columns[0].overflow, table.columns[0].ratio = False, "fold", None
    for each in rows:
        table.add_row(each.name, _format_score(each.score), each.result.status, f"{each.result.seconds:.1f}")
    make_console(stream).print(table)


def _sort_key(ended: Ended, monitor: str) -> float:
    """Return the sort key that puts the best score first and missing scores last."""
    return -Monitor(monitor).rank(ended.score)


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
