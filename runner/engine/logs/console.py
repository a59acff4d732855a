"""Output on the terminal: progress lines and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from runner.decoration import decorative
from runner.engine.logs.notebook_bar import NotebookBar
from runner.engine.logs.progress_line import fitting, line, lines
from runner.engine.logs.sinks import Row
from runner.printing import in_notebook, standard_error, write_to

if TYPE_CHECKING:
    from runner.engine.transfer import Arriving

_LABELS = {"train/loss_average": "loss", "val/loss": "val loss", "val/accuracy": "val accuracy"}
# Minimum time in seconds between two redraws of the bar, and its width with the space beside it.
_REDRAW, _BAR = 0.1, 13
_SPEED = ("images/s", "left")


class Console:
    """A sink that prints the progress of a run to standard error, so that standard output can be piped.

    One line per validation: `epoch 3/20  step 57/380  loss 0.4123  val loss 0.3977  val accuracy 0.9412  images/s 8123
    left 0:07`. The loss is the moving average. Speed and remaining time are computed from the time since the previous
    line, including validation. A terminal also has a progress bar, which moves with each step.

    Args:
        steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        batch_size: Examples per optimizer step.
        averaged: True if validation reads averaged weights; the first line on a terminal says so.
        monitor: The tag of a score that is shown besides accuracy and loss.
        stream: Where to print; standard error by default.
    """

    def __init__(
        self,
        *,
        steps: int,
        steps_per_epoch: int,
        batch_size: int,
        averaged: bool = False,
        monitor: str = "val/accuracy",
        stream: TextIO | None = None,
    ) -> None:
        self._steps, self._per_epoch, self._batch = steps, steps_per_epoch, batch_size
        self._stream, self._averaged = stream or standard_error(), averaged
        self._labels = {**_LABELS, monitor: monitor.replace("/", " ")}
        self._latest: dict[str, float] = {}
        # The row from which on the speed is measured.
        self._since: Row | None = None
        self._bar = _make_bar(self._stream, steps)
        self._loss: Arriving | None = None
        self._next = 0.0

    @property
    def ticks(self) -> list[Callable[[int, Mapping[str, Any]], None]]:
        """The functions that get the values of each step: that of the bar, if there is one."""
        return [self._tick] if self._bar else []

    def write(self, rows: Sequence[Row]) -> None:
        """Print a line for each row with a validation, and move the bar to the last row."""
        for row in rows:
            self._since = self._since or row
            self._latest |= {tag: row.values[tag] for tag in self._labels if tag in row.values}
            if "val/loss" in row.values:
                self._print(self._parts(row))
                self._since = row
        if self._bar and rows:
            self._bar.move(rows[-1].step, self._parts(rows[-1]))

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def _tick(self, step: int, values: Mapping[str, Any]) -> None:
        """Move the bar to a step, with its loss until the first average of losses is there; never waits."""
        now = time.monotonic()
        if self._bar is None or now < self._next or "train/loss" not in values:
            return
        self._next = now + _REDRAW
        row = Row(step, time.time(), {})
        self._since = self._since or row
        if self._loss is None:
            # Imports torch, which a sweep's own process does without
            from runner.engine.transfer import Arriving

            self._loss = Arriving()
        loss = self._loss.offer(values["train/loss"])
        self._bar.move(step, self._parts(row, {} if loss is None else {"train/loss_average": loss}))

    def _print(self, parts: Mapping[str, str]) -> None:
        if self._bar:
            average = {"": "(averaged weights)"} if self._averaged else {}
            before = {name: parts[name] for name in parts if name not in _SPEED}
            self._bar.print({**before, **average, **parts})
            # Once is enough
            self._averaged = False
        else:
            write_to(self._stream, f"{line(parts)}\n")

    def _parts(self, row: Row, first: Mapping[str, float] | None = None) -> dict[str, str]:
        """Return the parts of a line: names and values; `first` has values of which no other is known yet."""
        epochs = -(-self._steps // self._per_epoch)
        known = {**(first or {}), **self._latest}
        parts = {"epoch": f"{-(-row.step // self._per_epoch)}/{epochs}", "step": f"{row.step}/{self._steps}"}
        parts |= {name: f"{known[tag]:.4f}" for tag, name in self._labels.items() if tag in known}
        since = self._since or row
        if row.step > since.step and row.time > since.time:
            speed = (row.step - since.step) / (row.time - since.time)
            parts |= {
                "images/s": f"{speed * self._batch:.0f}",
                "left": format_duration((self._steps - row.step) / speed),
            }
        return parts


def _make_bar(stream: TextIO, steps: int) -> Bar | NotebookBar | None:
    """Return the progress bar for a stream, None for a pipe or a file."""
    if in_notebook(stream):
        return NotebookBar(stream, steps)
    return Bar(stream, steps) if stream.isatty() else None


class Bar:
    """A progress bar at the bottom of a terminal. It is redrawn by `move`, without a thread.

    It fits the terminal, whose width may change: parts are left out, never cut. A bar that cannot be drawn is one line,
    and no bar from then on.
    """

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream, self._drawn, self._cells = stream, 0.0, 0
        self._progress: Any = None
        with self._decorative():
            self._progress, self._task = _start_progress(stream, steps)

    def move(self, step: int, parts: Mapping[str, str]) -> None:
        """Move the bar to a step and set the text beside it: as many of the parts as fit."""
        now = time.monotonic()
        due = now - self._drawn >= _REDRAW
        self._drawn = now if due else self._drawn
        with self._decorative():
            if self._progress:
                width = self._progress.console.width
                text = fitting(parts, width - _BAR)
                if due:
                    self._erase_wrapped(width)
                    self._cells = _BAR + len(text)
                self._progress.update(self._task, completed=step, description=text, refresh=due)

    def print(self, parts: Mapping[str, str]) -> None:
        """Print names and values above the bar, in several lines if they are too long for one."""
        with self._decorative():
            if self._progress:
                console = self._progress.console
                self._erase_wrapped(console.width)
                console.print("\n  ".join(lines(parts, console.width - 2)), soft_wrap=True)
                return
        write_to(self._stream, f"{line(parts)}\n")

    def close(self) -> None:
        """Remove the bar from the screen."""
        with self._decorative():
            if self._progress:
                self._erase_wrapped(self._progress.console.width)
                self._progress.stop()

    def _erase_wrapped(self, width: int) -> None:
        """Erase the lines that the drawn bar takes in a terminal that has become too narrow for it, but the first."""
        from rich.control import Control
        from rich.segment import ControlType

        # A terminal that is made narrower wraps what it shows
        for _ in range((self._cells - 1) // max(1, width)):
            self._progress.console.control(Control((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)))
        self._cells = min(self._cells, width)

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
    columns = (BarColumn(bar_width=_BAR - 1), text)
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
