"""The objectives of a search besides the monitor: their values from the folders of a point's runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from runner.comparing.groups import Group
from runner.comparing.pareto import Objective
from runner.comparing.runs import find_runs
from runner.errors import RunnerError


def other_values(objectives: Sequence[tuple[str, bool]], folders: Sequence[Path]) -> tuple[float, ...]:
    """Return the values of objectives over the runs of a point as `task=compare` has them; nan if there is none.

    Args:
        objectives: Their names, and True where larger is better.
        folders: The folders of the complete runs, one for each seed.
    """
    if not objectives:
        return ()
    try:
        runs = find_runs([str(each) for each in folders]).runs
    except RunnerError:
        return (math.nan,) * len(objectives)
    group = Group(label="", short="", values={}, runs=tuple(runs))
    return tuple(Objective(*each).of(group, "best") for each in objectives)
