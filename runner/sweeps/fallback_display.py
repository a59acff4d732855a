"""A display of a sweep that fails costs no trial: another one takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from runner.decoration import decorative
from runner.tasks.job import Job

if TYPE_CHECKING:
    from runner.sweeps.display import Display
    from runner.sweeps.outcome import Ended

_BROKEN = "live table: not shown"


class FallbackDisplay:
    """A display that is replaced by another one, with one line, when it fails."""

    def __init__(self, make: Callable[[], Display], otherwise: Display) -> None:
        self._shown, self._otherwise = otherwise, otherwise
        with decorative(_BROKEN):
            self._shown = make()

    def trial_ended(self, ended: Ended) -> None:
        """Record a trial that ended."""
        self._show(lambda shown: shown.trial_ended(ended))

    def refresh(self, running: Sequence[Job], waiting: int, *, loaded: bool) -> None:
        """Show the running trials and the number of waiting ones."""
        self._show(lambda shown: shown.refresh(running, waiting, loaded=loaded))

    def close(self) -> None:
        """Stop showing."""
        self._show(lambda shown: shown.close())

    def _show(self, act: Callable[[Display], None]) -> None:
        with decorative(_BROKEN):
            act(self._shown)
            return
        broken, self._shown = self._shown, self._otherwise
        with suppress(Exception):
            broken.close()
