"""What a run says while it goes: a line per validation, and below it a bar where there is a screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TextIO

from runner.engine.logs.sinks import Row

SHOWN = {"train/loss_average": "loss", "val/loss": "val loss", "val/accuracy": "val accuracy"}
PAUSE = 0.1  # seconds between two drawings of the bar, at least


class Console:
    """Watches the rows of a log; on standard error, so that output can be piped.

    One line per validation: `epoch 3/20  step 57/380  loss 0.4123  val loss 0.3977  val accuracy 0.9412  images/s 8123
    left 0:07`. The loss is the moving average; speed and time left are those since the line before, validation
    included. On a terminal a bar with fewer words moves in between. A quiet run has no Console.
    """

    def __init__(self, *, steps: int, steps_per_epoch: int, batch_size: int, stream: TextIO | None = None) -> None:
        self._steps, self._per_epoch, self._batch = steps, steps_per_epoch, batch_size
        self._stream = stream or sys.stderr
        self._latest: dict[str, float] = {}
        self._since: Row | None = None  # where the speed is measured from
        self._bar = Bar(self._stream, steps) if self._stream.isatty() else None

    def write(self, rows: Sequence[Row]) -> None:
        """Take rows in order of step."""
        for row in rows:
            self._since = self._since or row
            self._latest |= {tag: row.values[tag] for tag in SHOWN if tag in row.values}
            if "val/loss" in row.values:
                self._say(self._words(row))
                self._since = row
        if self._bar and rows:
            self._bar.move(rows[-1].step, self._words(rows[-1], without=("step", "val loss")))

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def _say(self, words: str) -> None:
        if self._bar:
            self._bar.say(words)
        else:
            self._stream.write(words + "\n")
            self._stream.flush()

    def _words(self, row: Row, *, without: Collection[str] = ()) -> str:
        epochs = -(-self._steps // self._per_epoch)
        parts = {"epoch": f"{-(-row.step // self._per_epoch)}/{epochs}", "step": f"{row.step}/{self._steps}"}
        parts |= {name: f"{self._latest[tag]:.4f}" for tag, name in SHOWN.items() if tag in self._latest}
        since = self._since or row
        if row.step > since.step and row.time > since.time:
            speed = (row.step - since.step) / (row.time - since.time)
            parts |= {"images/s": f"{speed * self._batch:.0f}", "left": clock((self._steps - row.step) / speed)}
        return "  ".join(f"{name} {value}" for name, value in parts.items() if name not in without)


class Bar:
    """A bar at the bottom of a terminal; drawn when told, by no thread."""

    def __init__(self, stream: TextIO, steps: int) -> None:
        from rich.console import Console as Screen
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        columns = (BarColumn(bar_width=12), words)
        screen = Screen(file=stream, highlight=False)
        self._progress = Progress(
            *columns, console=screen, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._progress.add_task("", total=steps)
        self._progress.start()
        self._drawn = 0.0

    def move(self, step: int, words: str) -> None:
        """Show how far the run is."""
        now = time.monotonic()
        due = now - self._drawn >= PAUSE
        self._drawn = now if due else self._drawn
        self._progress.update(self._task, completed=step, description=words, refresh=due)

    def say(self, words: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(words, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._progress.stop()


def clock(seconds: float) -> str:
    """Return a time as minutes:seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def summary_table(rows: Sequence[Mapping[str, Any]], *, title: str = "", stream: TextIO | None = None) -> None:
    """Write rows of the same keys as a table; numbers with four places, to the right."""
    from rich import box
    from rich.console import Console as Screen
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for key, value in rows[0].items() if rows else ():
        table.add_column(key, justify="right" if isinstance(value, (int, float)) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    stream = stream or sys.stdout
    width = None if stream.isatty() else 200  # a pipe has no width: do not wrap at a guessed 80
    Screen(file=stream, highlight=False, width=width, markup=False).print(table)


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
