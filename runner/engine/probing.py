"""Drives probes round one update."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch import Tensor

from runner.engine.contracts import Numbers, Outcome, Probe, Watch, Watched


def due(probes: Sequence[Probe], step: int) -> list[Probe]:
    """Return the probes that watch the update after which `step` steps are done: the first and every so many."""
    return [probe for probe in probes if step % probe.every == 0 or step == 1]


class probing:  # noqa: N801  (a context manager, read as a verb; a generator function would cost 4 us a step)
    """Run each probe up to its `yield`, let the body make the update, then run each to its end.

    The body puts the update's result into `outcome`; afterwards `values` holds what the probes measured, by tag.
    """

    __slots__ = ("outcome", "values", "watches")

    def __init__(self, probes: Sequence[Probe], watched: Watched) -> None:
        self.watches = [probe.watch(watched) for probe in probes]
        self.outcome: Outcome
        self.values: dict[str, Tensor | Numbers] = {}

    def __enter__(self) -> probing:
        for watch in self.watches:
            next(watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for watch in self.watches if kind is None else ():
                self.values.update(finish(watch, self.outcome))
        finally:
            for watch in self.watches:
                watch.close()


def finish(watch: Watch, outcome: Outcome) -> dict[str, Tensor | Numbers]:
    """Resume a probe with the update's outcome and return what it measured."""
    try:
        watch.send(outcome)
    except StopIteration as stop:
        return dict(stop.value)
    raise TypeError("a probe yields twice: its one yield marks the update, and its values are returned")
