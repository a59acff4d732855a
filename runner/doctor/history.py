"""The curves of a run, read from `metrics.jsonl`, with what the run was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runner.comparing.runs import Run
from runner.doctor.facts import RunFacts, facts_of
from runner.engine.logs.sinks import METRICS, read_metrics
from runner.engine.saving.storage import printable
from runner.errors import CheckpointError


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        steps: The steps (n,), ascending, int64.
        values: The values (n,), float64; non-finite ones are kept.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Series:
        """Return the part with finite values."""
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep])


@dataclass(frozen=True)
class History:
    """The curves of a run, and those of its siblings.

    Attributes:
        facts: What the run was.
        curves: The curves by tag.
        siblings: The other trials of a sweep, without siblings of their own.
    """

    facts: RunFacts
    curves: Mapping[str, Series]
    siblings: tuple[History, ...] = field(default=())

    def series(self, tag: str) -> Series:
        """Return the curve of a tag, empty if it was not logged."""
        return self.curves.get(tag, Series(np.zeros(0, np.int64), np.zeros(0)))

    def tags(self, prefix: str = "") -> tuple[str, ...]:
        """Return the logged tags that begin with a prefix, in alphabetical order."""
        return tuple(sorted(tag for tag in self.curves if tag.startswith(prefix)))


def read_history(run: Run) -> History:
    """Return the history of a run from its folder, which stays as it is.

    Raises CheckpointError if there are no logged numbers, or the file is damaged.
    """
    path = run.folder / METRICS
    try:
        return History(facts_of(run), curves_of(read_metrics(path)))
    except FileNotFoundError:
        raise CheckpointError(f"{printable(path)}: there is none, so there are no curves to read") from None
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{printable(path)}: malformed") from error


def curves_of(rows: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, Series]:
    """Return the curves of logged rows by tag; of two rows of one step the later one counts."""
    found: dict[str, dict[int, float]] = {}
    for step, values in rows:
        for tag, value in values.items():
            found.setdefault(tag, {})[step] = value
    return {tag: _series(points) for tag, points in found.items()}


def _series(points: Mapping[int, float]) -> Series:
    """Return a curve from its points."""
    steps, values = np.fromiter(points.keys(), np.int64), np.fromiter(points.values(), np.float64)
    order = np.argsort(steps, kind="stable")
    return Series(steps[order], values[order])
