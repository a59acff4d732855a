"""The block of a sweep in the notebook: what all trials share, and a table with a column for each swept key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.comparing.groups import format_value
from runner.notebook.entries import (
    STAMP,
    config_values,
    escape,
    given_values,
    heading,
    is_training,
    question_lines,
    start_time,
    trial_cells,
    unquoted,
)

_ROW = re.compile(rf"\| {STAMP} \| \[[^\]]*\]\((?P<link>[^)]*)\) \|.*")
_HEAD = ("date", "trial")
_SCORES = ("val accuracy", "best", "val loss", "status")
# Keys that say nothing about a training
_UNSHOWN = ("note", "sweep", "outputs")
# The bar of a table that is not escaped
_BAR = re.compile(r"(?<!\\)\|")

# The cells of a row by the names of their columns
_Cells = Mapping[str, str]


def link_of(line: str) -> str | None:
    """Return the link of a trial's row in the notebook, None for another line."""
    match = _ROW.fullmatch(line)
    return unquoted(match["link"]) if match else None


def read_rows(lines: Sequence[str]) -> dict[str, _Cells]:
    """Return the rows of a sweep's table by link."""
    names: list[str] = []
    rows: dict[str, _Cells] = {}
    for line in lines:
        if line.startswith(f"| {' | '.join(_HEAD)} |"):
            names = _split(line)
        elif (link := link_of(line)) is not None:
            rows[link] = dict(zip(names, _split(line), strict=False))
    return rows


def sweep_block(outputs: Path, sweep: str, links: Sequence[str], before: Mapping[str, _Cells]) -> list[str]:
    """Return the lines of a sweep.

    Args:
        outputs: The folder of the notebook.
        sweep: The link of the sweep.
        links: The links of its trials.
        before: The rows that the notebook has; those of trials that are gone stay.
    """
    starts = {link: start_time(outputs / link) for link in {*links, *before} if is_training(outputs / link)}
    trials = {link: outputs / link for link in sorted(starts, key=lambda link: (starts[link], link))}
    shared, values = _shared_and_swept(trials)
    rows: dict[str, _Cells] = {link: cells for link, cells in before.items() if link not in trials}
    for link, folder in trials.items():
        date, name, *scores = trial_cells(folder, link)
        swept = {escape(key): escape(value) for key, value in values[link].items()}
        rows[link] = {**dict(zip(_HEAD, (date, name), strict=True)), **swept, **dict(zip(_SCORES, scores, strict=True))}
    ordered = [rows[link] for link in sorted(rows, key=lambda link: (rows[link].get("date", ""), link))]
    keys = dict.fromkeys(key for cells in ordered for key in cells if key not in (*_HEAD, *_SCORES))
    columns = (*_HEAD, *keys, *_SCORES)
    leader = next(iter(trials.values()))
    return [
        heading(leader, sweep, what="sweep "),
        "",
        *question_lines(leader),
        f"- the same in all: {', '.join(map(escape, shared)) or 'the defaults'}",
        "",
        _line(columns),
        f"|{'---|' * len(columns)}",
        *(_line([cells.get(name, "") for name in columns]) for cells in ordered),
    ]


def _shared_and_swept(trials: Mapping[str, Path]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the words that all trials have, and the values of the other keys by trial, from the trials' own files.

    A trial that failed before it could write its command line has the values of its config.
    """
    given = {link: given_values(folder) for link, folder in trials.items()}
    keys = [key for key in dict.fromkeys(key for each in given.values() for key in each) if key not in _UNSHOWN]
    known = [each for each in given.values() if each]
    shared = [key for key in keys if len({each.get(key) for each in known}) == 1]
    swept = [key for key in keys if key not in shared]
    values = {}
    for link, folder in trials.items():
        own: Mapping[str, str] = given[link]
        if not own and swept:
            own = {key: format_value(value) for key, value in config_values(folder).items()}
        values[link] = {key: own.get(key, "") for key in swept}
    return [f"{key}={known[0][key]}" for key in shared], values


def _split(line: str) -> list[str]:
    """Return the cells of a table's line."""
    return [cell.strip() for cell in _BAR.split(line.strip())[1:-1]]


def _line(cells: Sequence[str]) -> str:
    """Return a table's line."""
    return f"| {' | '.join(cells)} |"
