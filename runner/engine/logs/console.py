"""Output on the terminal: progress lines and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from runner.decoration import decorative
from runner.engine.logs.sinks import Row
from runner.printing import standard_error, write_to

_LABELS = {"train/loss_average": "loss", "val/loss": "val loss", "val/accuracy": "val accuracy"}
# Minimum time in seconds between two redraws of the bar.
_REDRAW = 0.1


class Console:
    """A sink that prints the progress of a run to standard error, so that standard output can be piped.

    One line per validation: `epoch 3/20  step 57/380  loss 0.4123  val loss 0.3977  val accuracy 0.9412  images/s 8123
    left 0:07`. The loss is the moving average. Speed and remaining time are computed from the time since the previous
    line, including validation. A terminal also has a progress bar.

    Args:
        steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        batch_size: Examples per optimizer step.
        stream: Where to print; standard error by default.
    """

    def __init__(self, *, steps: int, steps_per_epoch: int, batch_size: int, stream: TextIO | None = None) -> None:
        self._steps, self._per_epoch, self._batch = steps, steps_per_epoch, batch_size
        self._stream = stream or standard_error()
        self._latest: dict[str, float] = {}
        # The row from which on the speed is measured.
        self._since: Row | None = None
        self._bar = Bar(self._stream, steps) if self._stream.isatty() else None

    def write(self, rows: Sequence[Row]) -> None:
        """Print a line for each row with a validation, and move the bar to the last row."""
        for row in rows:
            self._since = self._since or row
            self._latest |= {tag: row.values[tag] for tag in _LABELS if tag in row.values}
            if "val/loss" in row.values:
                self._print(self._progress_text(row))
                self._since = row
        if self._bar and rows:
            self._bar.move(rows[-1].step, self._progress_text(rows[-1], without=("step", "val loss")))

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def _print(self, text: str) -> None:
        if self._bar:
            self._bar.print(text)
        else:
            write_to(self._stream, f"{text}\n")

    def _progress_text(self, row: Row, *, without: Collection[str] = ()) -> str:
        epochs = -(-self._steps // self._per_epoch)
        parts = {"epoch": f"{-(-row.step // self._per_epoch)}/{epochs}", "step": f"{row.step}/{self._steps}"}
        parts |= {name: f"{self._latest[tag]:.4f}" for tag, name in _LABELS.items() if tag in self._latest}
        since = self._since or row
        if row.step > since.step and row.time > since.time:
            speed = (row.step - since.step) / (row.time - since.time)
            parts |= {
                "images/s": f"{speed * self._batch:.0f}",
                "left": format_duration((self._steps - row.step) / speed),
            }
        return "  ".join(f"{name} {value}" for name, value in parts.items() if name not in without)


class Bar:
    """A progress bar at the bottom of a terminal. It is redrawn by `move`, without a thread.

    A bar that cannot be drawn is one line, and no bar from then on.
    """

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream, self._drawn = stream, 0.0
        self._progress: Any = None
        with self._decorative():
            self._progress, self._task = _start_progress(stream, steps)

    def move(self, step: int, text: str) -> None:
        """Move the bar to a step and set the text beside it."""
        now = time.monotonic()
        due = now - self._drawn >= _REDRAW
        self._drawn = now if due else self._drawn
        with self._decorative():
            if self._progress:
                self._progress.update(self._task, completed=step, description=text, refresh=due)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        with self._decorative():
            if self._progress:
                self._progress.console.print(text, soft_wrap=True)
                return
        write_to(self._stream, f"{text}\n")

    def close(self) -> None:
        """Remove the bar from the screen."""
        with self._decorative():
            if self._progress:
                self._progress.stop()

    @contextmanager
    def _decorative(self) -> Iterator[None]:
        """Run the body; if it fails, remove the bar and print one line."""
        with decorative("progress bar: not shown"):
            yield
            return
        broken, self._progress = self._progress, None
        if broken:
            with suppress(Exception):
                broken.stop()


def _start_progress(stream: TextIO, steps: int) -> tuple[Any, Any]:
    """Return a progress bar on a stream, and its task."""
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    from runner.rich_console import make_console

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (BarColumn(bar_width=12), text)
    screen = make_console(stream)
    progress = Progress(
        *columns, console=screen, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    task = progress.add_task("", total=steps)
    progress.start()
    return progress, task


def format_duration(seconds: float) -> str:
    """Format seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
