"""The results of a search: the best point, and all points ranked by score."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.engine.monitor import Monitor, score_name
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import escaped
from runner.printing import counted, write_stdout
from runner.screen_tables import print_table, rows_note
from runner.search.budgets import write_best_so_far
from runner.search.records import RankedPoint, Search

# The name that hydra-optuna-sweeper uses
RESULTS = "optimization_results.yaml"
_RANKING = "ranking.csv"
# Most points of the table in the terminal; the file has all
_MAX_ROWS = 20


def about_search(search: Search) -> dict[str, Any]:
    """Return what `optimization_results.yaml` says of a search."""
    return {
        "name": "refine" if search.refine else "optuna",
        "sampler": search.sampler["name"],
        "study_name": search.study_name,
    }


def write_ranking(
    folder: Path, rows: Sequence[RankedPoint], monitor: Monitor, about: Mapping[str, Any], *, fresh: bool = False
) -> None:
    """Write `optimization_results.yaml`, `ranking.csv` and `best_so_far.csv` into a sweep.

    Args:
        folder: The folder of the sweep.
        rows: Its points, the best first.
        monitor: The score.
        about: The sweeper and its settings, `name` among them, and why it stopped early.
        fresh: The points may have scores of fresh seeds.
    """
    best = next((row for row in rows if row.value is not None), None)
    found: dict[str, Any] = {
        "name": about["name"],
        "best_params": {key: yaml.safe_load(text) for key, text in best.words} if best else {},
        "best_value": best and (statistics.fmean(best.fresh) if best.fresh else best.value),
        "best_runs": best.folders if best else [],
        "monitor": monitor.tag,
        "direction": monitor.direction,
        **{key: value for key, value in about.items() if key != "name"},
        "points": {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})},
    }
    write_atomic(folder / RESULTS, yaml.safe_dump(found, sort_keys=False, allow_unicode=True).encode())
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    keys = _columns(rows)
    more = ["stage", "fresh", "fresh_sd", "fresh_seeds"] if fresh else []
    table.writerow(["rank", "trial", "state", monitor.tag, "sd", "seeds", *more, *keys, "runs", "reason"])
    for rank, row in enumerate(rows, 1):
        values = dict(row.words)
        scores = ["" if row.value is None else row.value, _spread(row), len(row.scores)]
        params = [values.get(key, "") for key in keys]
        scores += _fresh(row) if fresh else []
        table.writerow([rank, row.number, row.state, *scores, *params, " ".join(row.folders), row.reason or ""])
    write_atomic(folder / _RANKING, text.getvalue().encode())
    in_order = sorted((row for row in rows if row.state != "running"), key=lambda row: row.number)
    write_best_so_far(folder, [math.nan if row.value is None else row.value for row in in_order], monitor)


def show_ranking(folder: Path, rows: Sequence[RankedPoint], search: Search, monitor: str) -> None:
    """Print the best points, the number of points in each state, and the paths of the files."""
    keys, seeds = _columns(rows), len(search.seeds) > 1 or search.refine is not None
    table = []
    for rank, row in enumerate(rows[:_MAX_ROWS], 1):
        values = dict(row.words)
        sd = {"sd": _spread(row) or None} if seeds else {}
        if search.refine:
            sd |= {"seeds": len(row.scores), " fresh": statistics.fmean(row.fresh) if row.fresh else None}
        scores = {
            "rank": rank,
            f" {score_name(monitor, 'best')}": row.value,
            **sd,
            " state": _state_in_words(row.state),
        }
        table.append({**scores, **{key: values.get(key, "") for key in keys}})
    left_out = rows_note(len(table), len(rows), "points", "the best first")
    print_table(table, keys=("rank",), notes=left_out)
    counts = {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})}
    words = ", ".join(f"{number} {_state_in_words(state)}" for state, number in counts.items())
    count = counted(len(rows), "point")
    write_stdout(
        f"{count} ({words}); all in {printable(folder / _RANKING)}, the best in {printable(folder / RESULTS)}\n"
    )
    for row in rows:
        if row.state == "fail":
            write_stdout(f"failed: {escaped(' '.join(row.folders))}: {row.reason}\n")


def _state_in_words(state: str) -> str:
    """Return a state for the table: when it is printed, a `running` point is one that did not finish."""
    return "unfinished" if state == "running" else state


def _columns(rows: Sequence[RankedPoint]) -> list[str]:
    """Return the keys that the points set, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key, _ in row.words))


def _fresh(row: RankedPoint) -> list[float | str | int]:
    """Return the stage of a point in a refining search, and mean, sd and number of its fresh scores."""
    mean = statistics.fmean(row.fresh) if row.fresh else ""
    return [row.stage, mean, statistics.stdev(row.fresh) if len(row.fresh) > 1 else "", len(row.fresh)]


def _spread(row: RankedPoint) -> float | str:
    """Return the standard deviation over seeds, empty for one seed."""
    return statistics.stdev(row.scores) if len(row.scores) > 1 else ""
