"""The complete comparison: runs, rows, warnings and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.comparing.comparability import check_same_data, count_test_reads, find_notes, find_warnings
from runner.comparing.groups import Group, find_baseline, group_runs
from runner.comparing.importance import Importance, importance
from runner.comparing.pareto import Front, Objective, find_front
from runner.comparing.runs import Found, Run, find_runs
from runner.comparing.samplers import adaptive_samplers
from runner.comparing.score_meaning import SCORES, check_is_known, check_same_score, shared_scores
from runner.comparing.studies import Race, race_notes, run_race
from runner.comparing.targets import read_target
from runner.comparing.verdicts import ComparedRow, Criterion, compare_with_baseline
from runner.decoration import decorative
from runner.errors import ConfigError
from runner.printing import counted
from runner.screen_tables import rows_note


@dataclass(frozen=True, kw_only=True)
class RaceRules:
    """The target of a race, and how runs make studies, settings and workloads."""

    until: str
    per_study: int
    tuned: Sequence[str]
    workloads: Sequence[str]
    plugins: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of a comparison, which tables, pictures and files show."""

    patterns: tuple[str, ...]
    criterion: Criterion
    rows: list[ComparedRow]  # the baseline, then the best first
    baseline: Group
    warnings: list[str]
    notes: list[str]
    importance: Importance
    scores: tuple[str, ...] = SCORES  # the scores with one meaning in all runs
    race: Race | None = None  # the times to a target, if there is one
    front: Front | None = None  # of several objectives, if there are any

    def first(self, most: int) -> Report:
        """Return the same comparison with so many rows at most: the baseline and the best."""
        return self if len(self.rows) <= most else replace(self, rows=self.rows[:most])

    @property
    def runs(self) -> int:
        """The number of runs, complete or not."""
        return sum(len(row.group.runs) for row in self.rows)


def make_report(
    patterns: Sequence[str],
    criterion: Criterion,
    wanted: str | None,
    rules: RaceRules | None = None,
    objectives: Sequence[Objective] = (),
) -> Report:
    """Compare the runs that patterns name, their times to a target if there are rules for it, and several objectives.

    Raises ConfigError if there are none, if they use different data, if the score has several meanings in them, or if
    `wanted` names no single baseline.
    """
    found = find_runs(patterns)
    if not found.runs:
        raise ConfigError(f"runs: {_no_runs(found)}")
    check_same_data(found.runs)
    check_same_score(found.runs, criterion.metric)
    groups = group_runs(found.runs)
    check_is_known(groups, criterion)
    baseline = find_baseline(groups, wanted)
    rows = compare_with_baseline(groups, baseline, criterion)
    rows.sort(key=lambda row: (not row.is_baseline, -criterion.score.rank(row.mean)))
    runs = [run for group in groups for run in group.runs]
    race = _race(groups, runs, rules) if rules else None
    return Report(
        patterns=tuple(patterns),
        criterion=criterion,
        rows=rows,
        baseline=baseline,
        warnings=find_warnings(groups, found, criterion),
        notes=[*find_notes(rows, criterion), *count_test_reads(runs), *(race_notes(race) if race else [])],
        importance=_importance(rows, runs),
        scores=shared_scores(runs),
        race=race,
        front=find_front(groups, objectives, criterion.at, runs) if objectives else None,
    )


def _race(groups: Sequence[Group], runs: Sequence[Run], rules: RaceRules) -> Race:
    """Return the times of some groups to the target of the rules."""
    target = read_target(rules.until, runs, rules.plugins)
    return run_race(groups, target, rules.per_study, rules.tuned, rules.workloads)


def _importance(rows: Sequence[ComparedRow], runs: Sequence[Run]) -> Importance:
    """Return how much of the scores each hyperparameter explains, or that it could not be computed."""
    with decorative("importance of the hyperparameters: not computed"):
        return importance(rows, adaptive_samplers(runs))
    return Importance(method="not computed: it failed")


def limited(lines: Sequence[str], most: int, where: str) -> list[str]:
    """Return so many lines at most, the last of them with the number of the others and where they are."""
    return list(lines) if len(lines) <= most else [*lines[: most - 1], f"... {len(lines) - most + 1} more{where}"]


def limit_note(shown: int, count: int) -> list[str]:
    """Return a line on the rows that a table leaves out, none if it has all."""
    return rows_note(shown, count, "configurations", "the best first; all in comparison.csv")


def _no_runs(found: Found) -> str:
    """Return the message for folders without a training run."""
    if found.unreadable:
        return f"no run can be read ({next(iter(found.unreadable.values()))})"
    return f"no training run among {counted(len(found.others), 'folder')} (all are of other tasks)"
