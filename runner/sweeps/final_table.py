"""The table of a sweep that has ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TextIO

from runner.decoration import decorative
from runner.directions import monitor_in
from runner.engine.monitor import score_name
from runner.keys import short_keys
from runner.printing import standard_output
from runner.screen_tables import natural_width, print_table, rows_note
from runner.sweeps.outcome import Ended
from runner.sweeps.swept import TRIAL, format_score, naming_columns

# Columns that make room for the swept keys, in this order
_OPTIONAL = (" seconds", TRIAL)
# Most rows
_MAX_ROWS = 60
_HASH = re.compile(r"[0-9a-f]{8}$")


def show_final_table(
    ended: Sequence[Ended], monitor: str, swept: Sequence[str] = (), stream: TextIO | None = None
) -> None:
    """Write a table of a sweep's trials: the swept keys, score, status, seconds, and the folder's name or its hash."""
    with decorative("table of the trials: not shown"):
        _show_final_table(ended, monitor, swept, stream or standard_output())


def _show_final_table(ended: Sequence[Ended], monitor: str, swept: Sequence[str], stream: TextIO) -> None:
    from runner.rich_console import make_console

    rows = list(ended)
    if len(rows) > _MAX_ROWS:
        rows = sorted(rows, key=_sort_key)[:_MAX_ROWS]
    screen, words = make_console(stream), short_keys(swept)
    score = f" {score_name(monitor, 'best')}"
    ends = [{score: format_score(each.score), " status": str(each.result.status)} for each in rows]
    names = naming_columns([each.job for each in rows], swept, [each.name for each in rows], ends, screen)
    more = [{" seconds": f"{each.result.seconds:.1f}", TRIAL: each.name} for each in rows]
    table = [name | end | rest for name, end, rest in zip(names, ends, more, strict=True)]
    if swept and natural_width(table, screen, words) > screen.width:
        # A long name would take the room of the scores
        table = [row | {TRIAL: _hash_of(row[TRIAL])} for row in table]
    print_table(
        table,
        keys=list(names[0]),
        optional=_OPTIONAL,
        headings=words,
        split=False,
        notes=rows_note(len(rows), len(ended), "trials", "the best first"),
        console=screen,
    )


def _hash_of(name: str) -> str:
    """Return the hash at the end of a trial's folder name, the name if it has none."""
    found = _HASH.search(name)
    return found[0] if found else name


def _sort_key(ended: Ended) -> float:
    """Return the sort key that puts the best score first and missing scores last."""
    return -monitor_in(ended.job.config).rank(ended.score)
