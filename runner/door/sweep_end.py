"""The end of a sweep on the screen: the table of its trials or points, why some failed, and what to do next."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.comparing.runs import read_overrides
from runner.decoration import decorative
from runner.directions import monitor_in
from runner.door.compose import compose_parts
from runner.door.options import Conf
from runner.door.overrides import read_overrides as read_words
from runner.door.plan import Plan
from runner.engine.monitor import Monitor, score_name
from runner.errors import escaped
from runner.printing import counted, write_stdout
from runner.status import Status
from runner.sweeps.display import show_reasons
from runner.sweeps.final_table import show_final_table
from runner.sweeps.outcome import Ended
from runner.sweeps.swept import values_of

if TYPE_CHECKING:
    from runner.door.plan_search import PlannedSearch
    from runner.search.study import Study


def show_trials(
    conf: Conf, plan: Plan, ended: Sequence[Ended], swept: Sequence[str], *, stopped: bool, rule: str | None = None
) -> None:
    """Show the table of all runs, why runs ended early, and the best one.

    `stopped`: a signal ended the sweep; `rule`: this one did.
    """
    if not ended:
        return
    monitor = ended[0].job.config["monitor"]
    show_final_table(ended, monitor, swept)
    with decorative("ranking.csv: not written"):
        _write_grid(plan, ended, swept, rule)
    early = [each for each in ended if each.result.reason]
    show_reasons([each for each in early if not (stopped and each.result.status is Status.INTERRUPTED)])
    if not stopped:
        with decorative("best configuration: not shown"):
            _show_best_trial(conf, plan, ended, monitor, swept)


def _write_grid(plan: Plan, ended: Sequence[Ended], swept: Sequence[str], rule: str | None) -> None:
    """Write the ranking of a grid, and show the settings of its scientific keys."""
    # Late: a grid needs no Optuna, and these modules do not either
    from runner.search.ranking import write_ranking
    from runner.search.scientific import report_scientific
    from runner.sweeps.grid_points import grid_points

    monitor = monitor_in(ended[0].job.config)
    rows = grid_points(ended, swept, monitor)
    write_ranking(plan.folder, rows, monitor, {"name": "grid", "stopped": rule})
    if plan.scientific:
        report_scientific(plan.folder, rows, plan.scientific, monitor)


def _show_best_trial(conf: Conf, plan: Plan, ended: Sequence[Ended], monitor: str, swept: Sequence[str]) -> None:
    """Print the configuration with the best mean score over its seeds, and what to do next."""
    groups: dict[tuple[tuple[str, str], ...], list[Ended]] = {}
    for each in ended:
        values = values_of(each.job)
        key = tuple((key, values[key]) for key in swept if key != "seed" and key in values)
        if each.score == each.score:
            groups.setdefault(key, []).append(each)
    if not groups:
        return
    best, rank = None, -float("inf")
    for key, members in groups.items():
        mean = statistics.fmean(each.score for each in members)
        if best is None or Monitor(monitor).rank(mean) > rank:
            best, rank = (key, members, mean), Monitor(monitor).rank(mean)
    assert best is not None
    key, members, mean = best
    words = [word for word in members[0].job.overrides if "seed" not in swept or not word.startswith("seed=")]
    named = ",".join("=".join(pair) for pair in key)
    _show_next(conf, plan, words, _in_words(named, mean, len(members), monitor))


def _in_words(named: str, mean: float, seeds: int, monitor: str) -> str:
    """Return the best configuration and its score in words."""
    over = f", mean of {counted(seeds, 'seed')}" if seeds > 1 else ""
    return f"{escaped(named) or 'all trials'}: {score_name(monitor, 'best')} {mean:.4f}{over}"


def _show_next(conf: Conf, plan: Plan, words: Sequence[str], what: str) -> None:
    """Print the best configuration and what to do next."""
    from runner.tasks.next_steps import after_sweep

    folders = [str(folder) for folder in conf.folders[1:] if folder not in conf.more]
    given = [*(["--config-dir", folders[0]] if folders else [])]
    given += ["--config-name", conf.primary] if conf.primary != "config" else []
    parts = compose_parts(conf, read_words(conf, words))
    if parts.many or parts.searched:
        # Of a recipe that sweeps; its values to try are all set now
        given.append("hydra.mode=RUN")
    write_stdout("\n".join(after_sweep(words, what, plan.folder, given)) + "\n")


def show_points(conf: Conf, plan: Plan, planned: PlannedSearch, study: Study, stopped: str | None = None) -> str:
    """Write and show the points of a search, the best first; return how many failed, in words, empty for none.

    `stopped` is the rule that ended the search early.
    """
    from runner.door.search_objectives import report_front
    from runner.search.ranking import about_search, show_ranking, write_ranking
    from runner.search.refine_report import report_lines
    from runner.search.scientific import report_scientific

    rows = study.rows()
    monitor = planned.like.config["monitor"]
    try:
        about = {**about_search(planned.search), "stopped": stopped}
        write_ranking(plan.folder, rows, planned.search.monitor, about, fresh=planned.search.refine is not None)
    finally:
        with decorative("ranking: not shown"):
            show_ranking(plan.folder, rows, planned.search, monitor)
    with decorative("pareto.csv: not written"):
        report_front(plan.folder, rows, planned.search)
    if planned.search.refine:
        with decorative("rounds: not shown"):
            lines = report_lines(rows, study.progress(), planned.search.monitor)
            write_stdout("".join(f"{escaped(line)}\n" for line in lines))
    if plan.scientific and rows:
        with decorative("scientific settings: not shown"):
            report_scientific(plan.folder, rows, plan.scientific, planned.search.monitor)
    best = next((row for row in rows if row.value is not None and row.folders), None)
    if best and best.value is not None:
        with decorative("best configuration: not shown"):
            words = read_overrides(plan.folder / best.folders[0])
            seeds = len(planned.search.seeds) > 1 or planned.search.refine
            words = [word for word in words if not seeds or not word.startswith("seed=")]
            named = ",".join("=".join(pair) for pair in best.words)
            scores = best.fresh or best.scores
            _show_next(conf, plan, words, _in_words(named, statistics.fmean(scores), len(scores), monitor))
    failed = sum(row.state == "fail" for row in rows)
    return f"{failed} of {len(rows)}" if failed else ""
