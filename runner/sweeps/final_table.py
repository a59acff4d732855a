"""The table of a sweep that has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TextIO

from runner.decoration import decorative
from runner.directions import monitor_in
from runner.printing import standard_output
from runner.sweeps.display import TRIAL, format_score, trial_table
from runner.sweeps.outcome import Ended
from runner.sweeps.swept import SPACE, columns_that_fit, headings, values_of

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
    console = make_console(stream)
    keys = _widths([values_of(each.job) for each in rows], dict(zip(swept, headings(swept), strict=True)))
    cells = [_cells(each, monitor, each.name) for each in rows]
    widths = [*keys.values(), *_widths(cells, {name: name for name in cells[0]}).values()]
    if swept and sum(widths) + SPACE * len(widths) > console.width:
        # A long name would take the room of the scores
        cells = [_cells(each, monitor, _hash_of(each.name)) for each in rows]
    shown, names = columns_that_fit(console.width, keys, _widths(cells, {name: name for name in cells[0]}))
    title = "" if len(rows) == len(ended) else f"the best {_MAX_ROWS}"
    names = [name for name in names if shown or name != TRIAL]
    table = trial_table(shown, names, title=title, hidden=[key for key in swept if key not in shown])
    for each, row in zip(rows, cells, strict=True):
        values = values_of(each.job)
        words = [values.get(key, "") for key in shown] or [row[TRIAL]]
        table.add_row(*words, *(row[name] for name in names))
    console.print(table)


def _cells(each: Ended, monitor: str, name: str) -> dict[str, str]:
    """Return the cells of a trial beside the swept keys, by column."""
    result = each.result
    return {
        monitor: format_score(each.score),
        "status": str(result.status),
        "seconds": f"{result.seconds:.1f}",
        TRIAL: name,
    }


def _widths(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> dict[str, int]:
    """Return the widths of some columns; `columns` has their headings."""
    return {name: max(len(word), *(len(row.get(name, "")) for row in rows)) for name, word in columns.items()}


def _hash_of(name: str) -> str:
    """Return the hash at the end of a trial's folder name, the name if it has none."""
    found = _HASH.search(name)
    return found[0] if found else name


def _sort_key(ended: Ended) -> float:
    """Return the sort key that puts the best score first and missing scores last."""
    return -monitor_in(ended.job.config).rank(ended.score)
