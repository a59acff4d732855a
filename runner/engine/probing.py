"""Probes: which are due, and how they run around an update."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch import Tensor

from runner.engine.contracts import Numbers, Outcome, Probe, Watch, Watched
from runner.errors import ConfigError


def due(probes: Sequence[Probe], step: int) -> list[Probe]:
    """Return the probes that measure optimizer step `step`: step 1 and every `every` steps."""
    return [probe for probe in probes if step % probe.every == 0 or step == 1]


# A class instead of a generator with `contextmanager`, which costs 4 us per step; named like a function.
class probing:  # noqa: N801
    """Context manager that runs each probe to its `yield`, then the body with the update, then each probe to its end.

    Args:
        probes: The probes that are due.
        watched: The state that they read.

    Attributes:
        outcome: The body stores the result of the update here.
        values: The measurements by tag; filled after the body.
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
                self._add(_finish(watch, self.outcome))
        finally:
            for watch in self.watches:
                watch.close()

    def _add(self, values: dict[str, Tensor | Numbers]) -> None:
        """Add a probe's values; raises ConfigError for a tag of another probe, or of the loop."""
        if twice := (self.values.keys() | {"train/loss"}) & values.keys():
            raise ConfigError(f"probe: two of them log '{min(twice)}'; a probe needs tags of its own")
        self.values.update(values)


def _finish(watch: Watch, outcome: Outcome) -> dict[str, Tensor | Numbers]:
    """Resume a probe with the outcome of the update and return its measurements."""
    try:
        watch.send(outcome)
    except StopIteration as stop:
        return dict(stop.value)
    raise TypeError("a probe yielded twice; expected one yield, around the update, and a return of the values")
