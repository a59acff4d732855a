"""Figures of the trainings of a search: the score against each hyperparameter, as in a comparison of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.comparing.groups import group_runs
from runner.comparing.responses import draw_response, numeric_keys
from runner.comparing.runs import find_runs
from runner.comparing.search_figures import draw_isolation, search_keys
from runner.comparing.verdicts import Criterion, compare_with_baseline
from runner.decoration import decorative
from runner.engine.figures.picture import Picture
from runner.protocol.outcome import StepResult


def trial_pictures(folder: Path, results: Sequence[StepResult]) -> dict[str, Picture]:
    """Return the pictures of each search, by their path in the folder of the protocol.

    `axes.svg` has the score of the last validation against each value, `isolation.svg` the best one in each range.
    """
    found: dict[str, Picture] = {}
    for each in results:
        if trials := each.measurements.get("trials"):
            runs = Path(trials[0]["folder"]).parent
            with decorative(f"figures of {each.step}: not drawn"):
                drawn = _pictures(folder / runs, each.measurements["metric"])
                found |= {f"{runs.parent}/{name}": picture for name, picture in drawn.items()}
    return found


def _pictures(folder: Path, metric: str) -> dict[str, Picture]:
    """Return the pictures of the runs in a folder; without several values or enough points there are none."""
    groups = group_runs(find_runs([str(folder)]).runs)
    criterion = Criterion(metric=metric, at="last")
    rows = compare_with_baseline(groups, groups[0], criterion)
    found = {"axes.svg": draw_response(rows, criterion)} if numeric_keys(rows) else {}
    return {**found, "isolation.svg": draw_isolation(rows, criterion)} if search_keys(rows) else found
