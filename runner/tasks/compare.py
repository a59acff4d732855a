"""task=compare: runs beside each other, seeds averaged, with what their differences do and do not show."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from runner.comparing.page import headline, html, markdown, pictures, remarks
from runner.comparing.report import Report, report
from runner.comparing.sheets import configurations_csv, runs_csv
from runner.comparing.tables import Table, cost_table, narrow
from runner.comparing.verdicts import Rule
from runner.engine.saving.folder import create
from runner.engine.saving.storage import write_atomic
from runner.errors import ConfigError
from runner.registry import register
from runner.roles import FilePath, Role, Verbatim
from runner.schema import Positive
from runner.tasks.job import Job

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
MOST_ROWS = 30  # of a table on the screen; the files have all
LEFT = ("configuration", "verdict")
ROOM = 23  # columns for what differs, one value a line; the verdict takes what is left


@register("task")
def compare(
    job: Job,
    *,
    baseline: Annotated[str | None, Verbatim(lists=True)],
    metric: Literal["val/accuracy", "val/loss"],
    at: Literal["last", "best"],
    margin: Positive | None,
    out: Annotated[str | None, Role.PATH, FilePath()],
) -> int:
    """Compare runs: mean and spread over seeds, differences seed by seed with intervals, and an honest verdict.

    Leaves a folder with `comparison.html` (one file, no network), `comparison.md`, `comparison.csv`, `runs.csv` and
    the pictures. Runs of different data are refused; unequal budgets, failed and unreadable runs are told of.
    """
    patterns = looked_at(job.config["runs"], job)
    found = report(patterns, Rule(metric=metric, at=at, margin=margin), baseline)
    folder = save(found, job, out)
    end = f"saved in      {folder}\nlook at it    {folder / 'comparison.html'}\n"
    with suppress(BrokenPipeError):  # a reader that stops early (`| head`)
        sys.stdout.write(shown(found) + end)
        sys.stdout.flush()
    return 0


def looked_at(runs: str | list[str] | None, job: Job) -> list[str]:
    """Return the patterns asked for; for none the sweep that was begun last, else all runs of `outputs`."""
    if runs == []:
        raise ConfigError("runs: got [], must name at least one run folder, sweep or pattern")
    if runs is not None:
        return [runs] if isinstance(runs, str) else runs
    outputs = Path(job.config["outputs"])
    sweeps = [path for path in (outputs / "sweeps").glob("*") if path.is_dir()]
    return [str(max(sweeps, key=lambda path: (path.stat().st_mtime, path.name)) if sweeps else outputs)]


def save(found: Report, job: Job, out: str | None) -> Path:
    """Write all forms of a comparison into a new folder and return it."""
    given = " ".join(map(shlex.quote, job.overrides))
    command = f"python -m runner {given}"
    drawn = pictures(found)
    files = {
        "comparison.html": html(found, drawn, command).encode(),
        "comparison.md": markdown(found, drawn, command).encode(),
        "comparison.csv": configurations_csv(found).encode(),
        "runs.csv": runs_csv(found).encode(),
        **{f"{name}.svg": picture for name, picture in drawn.items()},
    }
    folder = create(Path(out or job.folder or Path(job.config["outputs"]) / f"compare-{subject(found)}"))
    for name, content in files.items():
        write_atomic(folder / name, content)
    return folder


def subject(found: Report) -> str:
    """Return a name for what was compared: the sweep's or the folder's, if it was one."""
    name = Path(found.looked_at[0]).name if len(found.looked_at) == 1 else ""
    return name if name and not set(name) & set("*?[]") else "runs"


def shown(found: Report) -> str:
    """Return the comparison for a screen of 80 columns, with colours where there is one."""
    from rich.console import Console

    screen = Console(file=sys.stdout, highlight=False, markup=False)
    screen.width = min(WIDTH, screen.width)
    with screen.capture() as text:
        screen.print(headline(found), style="bold")
        for line in found.banners:
            screen.print(f"mind: {line}", style="yellow")
        draw(screen, narrow(found))
        for line in remarks(found):
            screen.print(f"- {line}")
        draw(screen, cost_table(found, narrow=True))
    return text.get()


def draw(screen: Console, rows: Table) -> None:
    """Write a table, its first lines only if there are many."""
    from rich import box
    from rich.table import Table as Columns

    table = Columns(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in rows[0]:
        words = name in LEFT
        longest = max(len(line) for row in rows for line in row[name].split(","))
        least = min(longest, ROOM) if name == LEFT[0] else None
        table.add_column(
            name, justify="left" if words else "right", overflow="fold", no_wrap=not words, min_width=least
        )
    for row in rows[:MOST_ROWS]:
        table.add_row(*(cell.replace(",", "\n") if name == LEFT[0] else cell for name, cell in row.items()))
    screen.print(table)
    if len(rows) > MOST_ROWS:
        screen.print(f"... {len(rows) - MOST_ROWS} more in comparison.md")
