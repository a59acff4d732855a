"""Several objectives of a search, `hydra.sweeper.objectives`: their check, and the front at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.comparing.front_tables import draw_front, front_csv, front_table, front_title
from runner.comparing.pareto import Objective, front_of, read_objectives
from runner.decoration import decorative
from runner.engine.figures.picture import draw_all, save_all
from runner.engine.monitor import Monitor
from runner.engine.saving.storage import write_atomic
from runner.errors import ConfigError, brief, shown
from runner.screen_tables import print_table
from runner.search.records import RankedPoint, Search

_KEY = "hydra.sweeper.objectives"
# Samplers and pruners of Optuna that go by one score
_ONE_SCORE = ("cmaes",)
# Most points of the table in the terminal; the file has all
_MAX_ROWS = 20


def check_objectives(
    given: Any, config: Mapping[str, Any], monitor: Monitor, sampler: str, pruner: str
) -> tuple[tuple[str, bool], ...]:
    """Return the objectives besides the monitor, each with True if larger is better; none without a list.

    Raises:
        ConfigError: The list does not begin with the monitor, has an unknown objective or one that no validation logs,
            or the sampler or the pruner goes by one score.
    """
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ConfigError(f"{_KEY}: got {brief(str(given))}, must be a list such as [{monitor.tag},seconds]")
    found = read_objectives(given, config.get("plugins") or (), key=_KEY)
    if not found:
        return ()
    if found[0].name != monitor.tag:
        raise ConfigError(f"{_KEY}: got {shown(given)}, must begin with the monitor, {monitor.tag}")
    for each in found[1:]:
        score = Monitor(each.name)
        if each.name.startswith("val/") and score.is_of_component and score.metric not in config["metric"]:
            raise ConfigError(f"{_KEY}: got '{each.name}', which no validation logs; add metric=[{score.metric}]")
    if sampler in _ONE_SCORE:
        raise ConfigError(
            f"{_KEY}: {sampler} goes by one score; use hydra/sweeper/sampler=tpe, gp, qmc, random or grid"
        )
    if pruner != "none":
        raise ConfigError(f"{_KEY}: {pruner} prunes by one score; use hydra/sweeper/pruner=none")
    return tuple((each.name, each.larger_is_better) for each in found[1:])


def report_front(folder: Path, rows: Sequence[RankedPoint], search: Search) -> None:
    """Write `pareto.csv` and `pareto.svg` into a search, and print the points that no other one beats."""
    scored = [row for row in rows if row.values]
    if not search.objectives or not scored:
        return
    objectives = [Objective(search.monitor.tag, search.monitor.sign > 0), *(Objective(*e) for e in search.objectives)]
    labels = [",".join("=".join(pair) for pair in row.words) for row in scored]
    front = front_of(labels, [row.values for row in scored], objectives)
    write_atomic(folder / "pareto.csv", front_csv(front).encode())
    print_table(front_table(front, _MAX_ROWS), title=front_title(front))
    with decorative("pareto.svg: not drawn"):
        save_all(folder, draw_all({"pareto.svg": draw_front(front)}))
