"""The trials of a study as they are stored: which count as points, and their ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import one_line
from runner.search.records import RankedPoint, Search
from runner.search.space import Space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# The attribute of a trial whose point is excluded
LEFT_OUT = "excluded"


def attribute(trial: FrozenTrial, name: str, kind: type, default: Any) -> Any:
    """Return a user attribute of a trial, the default if it has none of this type: others may write attributes, too."""
    value = trial.user_attrs.get(name)
    return value if isinstance(value, kind) else default


def is_counted(trial: FrozenTrial, space: Space) -> bool:
    """Return True if a trial counts as a point: it ended with a result, or has been started with all its values."""
    state = trial.state.name
    return state in ("COMPLETE", "PRUNED") or (state != "WAITING" and space.is_complete(trial.params))


def retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials in whose place there is another one: it repeats them, or they were left out."""
    again = {number for each in trials if (number := attribute(each, "again", int, None)) is not None}
    return again | {each.number for each in trials if attribute(each, LEFT_OUT, bool, False)}


def asked_seeds(trial: FrozenTrial) -> tuple[int, ...]:
    """Return the seeds that a trial was stored for, empty for those of its search."""
    return tuple(map(int, attribute(trial, "seeds", list, [])))


def kept_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial that repeats another one takes over from it."""
    kept: dict[str, Any] = {name: trial.user_attrs[name] for name in ("seeds", "stage") if name in trial.user_attrs}
    return kept | {"again": trial.number}


def ranked(trials: Sequence[FrozenTrial], search: Search) -> list[RankedPoint]:
    """Return the points of a study, the best first and points without a score last."""
    done_again = retried(trials)
    rows = [_row(each, search) for each in trials if is_counted(each, search.space) and each.number not in done_again]
    order, rank = {"complete": 0, "pruned": 1}, search.monitor.rank
    return sorted(
        rows,
        key=lambda row: (order.get(row.state, 2), -rank(math.nan if row.value is None else row.value), row.number),
    )


def _row(trial: FrozenTrial, search: Search) -> RankedPoint:
    """Return a trial as a row of the ranking."""
    runs: Mapping[str, Any] = attribute(trial, "runs", dict, {})
    values = trial.values if trial.state.name == "COMPLETE" else None
    return RankedPoint(
        number=trial.number,
        words=search.space.words(search.space.ordered(trial.params)),
        state=trial.state.name.lower() if runs.get("status") != "diverged" else "diverged",
        value=values[0] if values else None,
        values=tuple(values or ()) if search.objectives else (),
        scores=runs.get("scores", []),
        folders=runs.get("folders", []),
        reason=None if (reason := runs.get("reason")) is None else one_line(str(reason)),
    )
