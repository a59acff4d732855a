"""The table of a sweep that has ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TextIO

from runner.decoration import decorative
from runner.directions import monitor_in
from runner.engine.monitor import score_name
from runner.printing import standard_output
from runner.screen_tables import natural_width, print_table, rows_note
from runner.sweeps.outcome import Ended
from runner.sweeps.swept import format_score, headings, values_of

_TRIAL = " trial"
# Columns that make room for the swept keys, in this order
_OPTIONAL = (" seconds", _TRIAL)
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
    screen, words = make_console(stream), dict(zip(swept, headings(swept), strict=True))
    table = [_row(each, monitor, swept, each.name) for each in rows]
    if swept and natural_width(table, screen, words) > screen.width:
        # A long name would take the room of the scores
        table = [_row(each, monitor, swept, _hash_of(each.name)) for each in rows]
    print_table(
        table,
        keys=swept or [_TRIAL],
        optional=_OPTIONAL,
        headings=words,
        split=False,
        notes=rows_note(len(rows), len(ended), "trials", "the best first"),
        console=screen,
    )


def _row(each: Ended, monitor: str, swept: Sequence[str], name: str) -> dict[str, str]:
    """Return the row of a trial: the swept keys, or its name without any, then its score and how it ended."""
    values = values_of(each.job)
    cells = {
        f" {score_name(monitor, 'best')}": format_score(each.score),
        " status": str(each.result.status),
        " seconds": f"{each.result.seconds:.1f}",
    }
    return {**{key: values.get(key, "") for key in swept}, **cells, _TRIAL: name} if swept else {_TRIAL: name, **cells}


def _hash_of(name: str) -> str:
    """Return the hash at the end of a trial's folder name, the name if it has none."""
    found = _HASH.search(name)
    return found[0] if found else name


def _sort_key(ended: Ended) -> float:
    """Return the sort key that puts the best score first and missing scores last."""
    return -monitor_in(ended.job.config).rank(ended.score)
