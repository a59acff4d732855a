"""Drives probes round one update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from runner.engine.contracts import Outcome, Probe, Watch, Watched


@dataclass
class Seen:
    """What one probed step gives: the update's outcome, put in by the loop, and the probes' values by tag."""

    outcome: Outcome | None = None
    values: dict[str, Tensor] = field(default_factory=dict)


def due(probes: Sequence[Probe], step: int) -> list[Probe]:
    """Return the probes that watch the update after which `step` steps are done: the first and every so many."""
    return [probe for probe in probes if step % probe.every == 0 or step == 1]


@contextmanager
def probing(probes: Sequence[Probe], watched: Watched) -> Iterator[Seen]:
    """Run each probe up to its `yield`, let the body make the update, then run each to its end."""
    seen = Seen()
    watches = [probe.watch(watched) for probe in probes]
    try:
        for watch in watches:
            next(watch)
        yield seen
        assert seen.outcome is not None
        for watch in watches:
            seen.values.update(finish(watch, seen.outcome))
    finally:
        for watch in watches:
            watch.close()


def finish(watch: Watch, outcome: Outcome) -> dict[str, Tensor]:
    """Resume a probe with the update's outcome and return what it measured."""
    try:
        watch.send(outcome)
    except StopIteration as stop:
        return dict(stop.value)
    raise TypeError("a probe yields twice: its one yield marks the update, and its values are returned")
