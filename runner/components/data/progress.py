"""How far a preparation is: a bar on a terminal, one line elsewhere, nothing where it takes no time."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from runner.engine.logs.console import Bar, clock

PATIENCE = 1.0  # seconds that pass in silence


class Progress:
    """Shows on standard error how many of `total` are done, once that has taken a second."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what, self._total, self._stream = what, total, stream or sys.stderr
        self._began = time.monotonic()
        self._bar: Bar | None = None
        self._said = False

    def move(self, done: int) -> None:
        """Take in that `done` are done."""
        passed = time.monotonic() - self._began
        if passed < PATIENCE or done == 0:
            return
        left = clock((self._total - done) * passed / done)
        if self._stream.isatty():
            self._bar = self._bar or Bar(self._stream, self._total)
            self._bar.move(done, f"{self._what}  {done}/{self._total}  {done / passed:.0f}/s  left {left}")
        elif not self._said:
            self._said = True
            self._stream.write(f"{self._what}: {self._total} in about {clock(self._total * passed / done)}\n")
            self._stream.flush()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar:
            self._bar.close()
            self._bar = None
