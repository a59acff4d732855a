"""task=compare: compare runs, averaged over seeds, with intervals and a verdict that the seeds support."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import Annotated, Literal

from runner.comparing.csv_tables import configurations_csv, importance_csv, runs_csv
from runner.comparing.front_tables import front_csv, front_table, front_title
from runner.comparing.page import draw_pictures, headline, html_page, markdown_page, remarks
from runner.comparing.pareto import read_objectives
from runner.comparing.report import RaceRules, Report, limit_note, limited, make_report
from runner.comparing.study_tables import profiles_table, times_csv, times_table
from runner.comparing.tables import calibration_table, cost_table, importance_table, screen_table
from runner.comparing.verdicts import Criterion
from runner.decoration import decorative
from runner.directions import monitor_by_tag
from runner.engine.figures.picture import save_all
from runner.engine.saving.folder import create
from runner.engine.saving.storage import is_read_only, printable, write_atomic
from runner.errors import ConfigError, StorageError, shown
from runner.printing import visible, write_stderr, write_stdout
from runner.registry import register
from runner.roles import FilePath, Role, Verbatim
from runner.schema import Positive, PositiveInt
from runner.screen_tables import print_table
from runner.tasks.job import Job
from runner.tasks.runs_given import patterns_of, subject_of

_PAGE = "comparison.html"
# Most columns; longer lines are hard to read
_WIDTH = 120
# Most rows of a table on the screen; the CSV files have all
_MAX_ROWS = 30


@register("task")
def compare(
    job: Job,
    *,
    baseline: Annotated[str | None, Verbatim(lists=True)],
    metric: str,
    at: Literal["last", "best"],
    margin: Positive | None,
    until: Annotated[str | None, Verbatim()],
    per_study: PositiveInt,
    tuned: list[str],
    workloads: list[str],
    objectives: list[str],
    out: Annotated[str | None, Role.PATH, FilePath()],
) -> int:
    """Compare runs: mean and sd over seeds, paired differences with intervals, and a verdict.

    Leaves a folder with `comparison.html` (one file, no network), `comparison.md`, `comparison.csv`, `runs.csv` and
    the pictures. Runs on different data, or with a `metric` of different meaning, are an error; unequal budgets, failed
    and unreadable runs are warnings. With `until` also the steps and seconds to a target score, in `target.csv` too;
    with `objectives` the configurations that no other one beats in all of them, in `pareto.csv` too.
    """
    score = monitor_by_tag(metric, job.config["plugins"], key="task.metric")
    criterion = Criterion(metric=metric, at=at, margin=margin, lower_is_better=score.lower_is_better)
    rules = _race_rules(job, until, per_study, tuned, workloads)
    wanted = read_objectives(objectives, job.config["plugins"])
    found = make_report(patterns_of(job), criterion, baseline, rules, wanted)
    printed = False
    with decorative("comparison: not shown"):
        _print_report(found)
        printed = True
    try:
        folder, pages = _save(found, job, out)
    except StorageError as error:
        if out or job.folder or not printed or not is_read_only(error):
            raise
        write_stderr(f"not saved: {error}; choose another place with task.out=<folder>\n")
        return 0
    view = f"view          {printable(folder / _PAGE)}\n" if _PAGE in pages else ""
    write_stdout(f"saved in      {printable(folder)}\n{view}")
    return 0


def _race_rules(
    job: Job, until: str | None, per_study: int, tuned: list[str], workloads: list[str]
) -> RaceRules | None:
    """Return the rules of the times to a target, None without one.

    Raises:
        ConfigError: There are rules without a target.
    """
    if until is not None:
        plugins = job.config["plugins"]
        return RaceRules(until=until, per_study=per_study, tuned=tuned, workloads=workloads, plugins=plugins)
    for name, words in (("tuned", tuned), ("workloads", workloads)):
        if words:
            raise ConfigError(f"task.{name}: got {shown(words)}; requires task.until=<score>>=<number>")
    return None


def _save(found: Report, job: Job, out: str | None) -> tuple[Path, list[str]]:
    """Write a comparison into a new folder, its numbers first; return the folder and the pages that could be made."""
    tables = {"comparison.csv": configurations_csv(found), "runs.csv": runs_csv(found)}
    if found.race:
        tables["target.csv"] = times_csv(found.race)
    if found.front:
        tables["pareto.csv"] = front_csv(found.front)
    if found.importance.effects:
        tables["importance.csv"] = importance_csv(found)
    folder = create(Path(out or job.folder or Path(job.config["outputs"]) / f"compare-{subject_of(found.patterns)}"))
    for name, text in tables.items():
        write_atomic(folder / name, _encoded(text))
    given = " ".join(map(shlex.quote, job.overrides))
    command = f"python -m runner {given}"
    drawn: dict[str, bytes] = {}
    with decorative("figures of the comparison: not drawn"):
        drawn = draw_pictures(found)
        saved = save_all(folder, {f"{name}.svg": picture for name, picture in drawn.items()})
        drawn = {name: picture for name, picture in drawn.items() if f"{name}.svg" in saved}
    written = []
    for name, page in (("comparison.md", markdown_page), (_PAGE, html_page)):
        with decorative(f"{name}: not written"):
            write_atomic(folder / name, _encoded(page(found, drawn, command)))
            written.append(name)
    return folder, written


def _encoded(text: str) -> bytes:
    """Return a text as UTF-8; names of files that are not UTF-8 are escaped, as is what no page shows."""
    return visible(text).encode()


def _print_report(found: Report) -> None:
    """Print the comparison, colored if the terminal has colors."""
    from runner.rich_console import make_console

    screen = make_console(pipe_width=None)
    screen.width = min(_WIDTH, screen.width)
    with screen:
        screen.print(_wrap(headline(found), screen.width), style="bold")
        for line in limited(found.warnings, _MAX_ROWS, " in comparison.md"):
            screen.print(_wrap(f"warning: {line}", screen.width), style="yellow")
        left_out = limit_note(_MAX_ROWS, len(found.rows))
        print_table(screen_table(found.first(_MAX_ROWS)), notes=left_out, console=screen)
        if found.race:
            print_table(times_table(found.race, _MAX_ROWS), title=f"time to {found.race.target}", console=screen)
            print_table(profiles_table(found.race, _MAX_ROWS), console=screen)
        if found.front:
            print_table(front_table(found.front, _MAX_ROWS), title=front_title(found.front), console=screen)
        for line in remarks(found):
            screen.print(_wrap(f"- {line}", screen.width))
        if shares := importance_table(found):
            biased = [found.importance.warning] if found.importance.warning else []
            print_table(shares[:_MAX_ROWS], title="share of the variance of the scores", notes=biased, console=screen)
        print_table(calibration_table(found.first(_MAX_ROWS), narrow=True), console=screen)
        print_table(cost_table(found.first(_MAX_ROWS), narrow=True), notes=left_out, console=screen)


def _wrap(line: str, width: int) -> str:
    """Return a line wrapped at a width, with a hanging indent."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False)
