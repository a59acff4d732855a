"""Settings of the scientific keys compared, each at the values of the other keys that are best for it."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.engine.monitor import Monitor, score_name
from runner.engine.saving.storage import write_atomic
from runner.errors import ConfigError, brief, unknown
from runner.screen_tables import print_table
from runner.search.budgets import best_of
from runner.search.records import RankedPoint

_FILE = "scientific.csv"
_NAME = "hydra.sweeper.scientific"
# A setting with so many times the trials of another one had clearly more chances
_UNEQUAL = 1.5


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """One setting of the scientific keys."""

    values: dict[str, str]
    best: RankedPoint | None  # None: none of its trials has a score
    scores: list[float]  # of its trials, NaN without one

    @property
    def score(self) -> float:
        """The score of the best trial: of fresh seeds where there are some."""
        if self.best is None or self.best.value is None:
            return math.nan
        return statistics.fmean(self.best.fresh) if self.best.fresh else self.best.value


def check_scientific(values: Any, searched: Sequence[str]) -> tuple[str, ...]:
    """Return the scientific keys; raises ConfigError for one that is not searched."""
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ConfigError(f"{_NAME}: got {brief(str(values))}, must be a list of keys: [optim]")
    for key in values:
        if key not in searched or key == "seed":
            raise unknown(_NAME, "key with several values", key, [each for each in searched if each != "seed"])
    return tuple(values)


def _settings(rows: Sequence[RankedPoint], keys: Sequence[str], monitor: Monitor) -> list[_Setting]:
    """Return the settings of some keys, the best one first."""
    groups: dict[tuple[str, ...], list[RankedPoint]] = {}
    for row in rows:
        values = dict(row.words)
        groups.setdefault(tuple(values.get(key, "") for key in keys), []).append(row)
    found = []
    for group, members in groups.items():
        scored = [row for row in members if row.value is not None]
        # Of a refining search, the points with fresh seeds are known best, and those with more seeds better than others
        scored.sort(key=lambda row: (not row.fresh, -len(row.scores), -monitor.rank(row.value or 0.0)))
        scores = [math.nan if row.value is None else row.value for row in members]
        best = scored[0] if scored else None
        found.append(_Setting(values=dict(zip(keys, group, strict=True)), best=best, scores=scores))
    return sorted(found, key=lambda setting: -monitor.rank(setting.score))


def _table(settings: Sequence[_Setting], monitor: Monitor) -> list[dict[str, Any]]:
    """Return a row for each setting: its score, the best values of the other keys, and how many trials it got."""
    least = min(len(each.scores) for each in settings)
    others = list(dict.fromkeys(key for each in settings if each.best for key, _ in each.best.words))
    rows = []
    for each in settings:
        values = dict(each.best.words) if each.best else {}
        scores = (each.best.fresh or each.best.scores) if each.best else []
        rows.append(
            {
                **each.values,
                f" {score_name(monitor.tag, 'best')}": None if math.isnan(each.score) else each.score,
                " sd": statistics.stdev(scores) if len(scores) > 1 else None,
                " seeds": len(scores),
                " trials": len(each.scores),
                " without score": sum(map(math.isnan, each.scores)),
                f" best of {least}": _number(best_of(each.scores, least, monitor).mean),
                **{key: values.get(key, "") for key in others if key not in each.values},
            }
        )
    return rows


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def report_scientific(folder: Path, rows: Sequence[RankedPoint], keys: Sequence[str], monitor: Monitor) -> None:
    """Print and write the settings of the scientific keys, each at its own best values of the other keys.

    Args:
        folder: The folder of the sweep, which gets `scientific.csv`.
        rows: The points of the sweep.
        keys: The scientific keys.
        monitor: The score.
    """
    settings = _settings(rows, keys, monitor)
    if not settings:
        return
    table = _table(settings, monitor)
    text = io.StringIO()
    writer = csv.DictWriter(text, [key.strip() for key in table[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key.strip(): "" if value is None else value for key, value in row.items()} for row in table)
    write_atomic(folder / _FILE, text.getvalue().encode())
    print_table(table, keys=list(keys), notes=_notes(settings))


def _notes(settings: Sequence[_Setting]) -> list[str]:
    """Return what to know of the table."""
    counts = [len(each.scores) for each in settings]
    notes = ["each at the values of the other keys that are best for it"]
    if max(counts) >= _UNEQUAL * min(counts):
        notes.append(
            f"they had {min(counts)} to {max(counts)} trials: more trials find a better best, so compare 'best of "
            f"{min(counts)}', the mean best score of as many of each"
        )
    return notes
