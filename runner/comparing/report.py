"""A comparison as a whole: what was read, what it says, what must be said with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.comparing.groups import Group, baseline, grouped
from runner.comparing.honesty import banners, refuse_other_data
from runner.comparing.importance import Importance, importance
from runner.comparing.notes import notes, test_reads
from runner.comparing.runs import Found, find_runs
from runner.comparing.verdicts import Row, Rule, compare
from runner.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a comparison found; the tables and pictures show nothing else."""

    looked_at: tuple[str, ...]
    rule: Rule
    rows: list[Row]
    against: Group
    banners: list[str]
    notes: list[str]
    importance: Importance

    @property
    def runs(self) -> int:
        """Return how many runs there are, ended well or not."""
        return sum(len(row.group.runs) for row in self.rows)


def report(patterns: Sequence[str], rule: Rule, wanted: str | None) -> Report:
    """Compare the runs that patterns name.

    Raises ConfigError where there are none, where they are of different data, or where the baseline is not among them.
    """
    found = find_runs(patterns)
    if not found.runs:
        raise ConfigError(f"runs: {nothing(found)}")
    refuse_other_data(found.runs)
    groups = grouped(found.runs)
    against = baseline(groups, wanted)
    rows = compare(groups, against, rule)
    rows.sort(key=lambda row: not row.is_baseline)
    runs = [run for group in groups for run in group.runs]
    return Report(
        looked_at=tuple(patterns),
        rule=rule,
        rows=rows,
        against=against,
        banners=banners(groups, found, rule),
        notes=[*notes(rows, rule), *test_reads(runs)],
        importance=importance(rows),
    )


def nothing(found: Found) -> str:
    """Return why there is no run among the folders that were found."""
    if found.unreadable:
        return f"no run can be read ({next(iter(found.unreadable.values()))})"
    return f"no training run among {len(found.others)} folders (they are of other tasks)"
