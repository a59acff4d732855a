"""The trials of a refining search as they are stored: a training each, with its seed and what it was for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.search.records import RankedPoint, Search
from runner.search.refine import Progress, Request, replay, training_key
from runner.search.stored_trials import attribute, ranked, retried

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# What the confirming trainings are stored as
_CONFIRMING = ("winner", "incumbent")


def attributes_of(request: Request) -> dict[str, Any]:
    """Return what a trial stores of its request."""
    return {"seeds": [request.seed], "stage": request.stage}


def progress_of(search: Search, trials: Sequence[FrozenTrial]) -> tuple[Progress, list[Request]]:
    """Return how far a search is, and the trainings that nobody runs yet."""
    assert search.refine is not None
    known: dict[tuple[str, int], float] = {}
    running = set()
    done_again = retried(trials)
    for each in trials:
        seeds = attribute(each, "seeds", list, [])
        if not seeds or each.number in done_again:
            continue
        key = training_key(search.space, each.params, seeds[0])
        if each.state.name == "RUNNING":
            running.add(key)
        elif each.state.is_finished():
            known[key] = each.value if each.state.name == "COMPLETE" and each.value is not None else math.nan
    progress = replay(search.space, search.refine, known)
    free = [each for each in progress.wanted if training_key(search.space, each.point, each.seed) not in running]
    return progress, free


def ranked_points(trials: Sequence[FrozenTrial], search: Search) -> list[RankedPoint]:
    """Return the points of a study, the best first and points without a score last."""
    rows = ranked(trials, search)
    return _merged_rows(rows, trials, search) if search.refine else rows


def _merged_rows(rows: Sequence[RankedPoint], trials: Sequence[FrozenTrial], search: Search) -> list[RankedPoint]:
    """Return one row for each point: the mean over the seeds of the search, and the scores of fresh seeds.

    Args:
        rows: A row for each training, those with a score first.
        trials: The trials of the study.
        search: The search.

    Returns:
        The rows, confirmed points first, then those with more seeds, then those with the better mean.
    """
    found: dict[tuple[tuple[str, str], ...], RankedPoint] = {}
    for row in sorted(rows, key=lambda row: row.number):
        stage = attribute(trials[row.number], "stage", str, "")
        point = found.setdefault(
            tuple(row.words), replace(row, scores=[], folders=[], value=None, fresh=[], stage=stage)
        )
        point.folders += row.folders
        if stage in _CONFIRMING:
            point.fresh += [] if row.value is None else [row.value]
            point.stage = stage
        else:
            point.scores += [] if row.value is None else [row.value]
        if row.state != "complete":
            point.state, point.reason = row.state, row.reason
    for point in found.values():
        point.value = statistics.fmean(point.scores) if point.scores and point.state == "complete" else None
    rank = search.monitor.rank
    order = {"winner": 0, "incumbent": 1}
    return sorted(
        found.values(),
        key=lambda row: (
            row.value is None,
            order.get(row.stage, 2),
            -len(row.scores),
            -rank(math.nan if row.value is None else row.value),
            row.number,
        ),
    )
