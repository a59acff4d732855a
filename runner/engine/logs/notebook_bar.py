"""A progress bar in a notebook, whose output is no terminal: one line that is written again from its beginning."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TextIO

from runner.engine.logs.progress_line import fitting, line
from runner.printing import visible, write_to

# Minimum time in seconds between two redraws: each is a message to the browser
_REDRAW = 0.2
_BLOCKS, _WIDTH = 20, 100


class NotebookBar:
    """A progress bar in the output of a notebook's cell, with the methods of `runner.engine.logs.console.Bar`."""

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream, self._steps = stream, steps
        self._drawn, self._length = 0.0, 0

    def move(self, step: int, parts: Mapping[str, str]) -> None:
        """Move the bar to a step and set the text beside it: as many of the parts as fit."""
        if time.monotonic() - self._drawn >= _REDRAW:
            self._drawn = time.monotonic()
            done = _BLOCKS * step // self._steps
            text = visible(fitting(parts, _WIDTH - _BLOCKS))
            self._write(f"[{'#' * done}{' ' * (_BLOCKS - done)}] {text}")

    def print(self, parts: Mapping[str, str]) -> None:
        """Print names and values above the bar."""
        self._write("")
        write_to(self._stream, f"{line(parts)}\n")

    def close(self) -> None:
        """Remove the bar."""
        self._write("")

    def _write(self, line: str) -> None:
        """Write a line in the place of the last one."""
        if line or self._length:
            # `visible` would escape the carriage returns
            self._stream.write(f"\r{line:<{self._length}}" + ("" if line else "\r"))
            self._stream.flush()
            self._length = len(line)
