"""A checkup on the screen: the findings of one run with its numbered advice, or the symptoms of several runs."""

from __future__ import annotations

from runner.comparing.tables import Table
from runner.doctor.checkup import Checkup, Examined
from runner.doctor.finding import Finding
from runner.doctor.page import headline, shares_table
from runner.doctor.words import (
    counts_in_words,
    folded,
    numbers_in_words,
    severity_in_words,
    steps_in_words,
)
from runner.printing import write_stdout
from runner.rich_console import make_console
from runner.screen_tables import print_table, rows_note

# Columns at most; longer lines are hard to read
_WIDTH = 120
# Rows of a table
_MAX_ROWS = 30


def numbered_advice(examined: Examined) -> list[tuple[Finding, tuple[str, ...]]]:
    """Return each piece of advice for a run with its finding, in the order of their numbers from 1."""
    return [(finding, words) for finding in examined.findings for words in finding.advice]


def print_checkup(checkup: Checkup) -> None:
    """Print a checkup on standard output, at most 120 columns wide."""
    screen = make_console(pipe_width=None)
    screen.width = min(_WIDTH, screen.width)
    for line in folded("", headline(checkup), screen.width, 0):
        write_stdout(f"{line}\n")
    if len(checkup.runs) == 1:
        (one,) = checkup.runs
        print_table(_findings_table(one), keys=("symptom",), optional=("evidence", "steps"), console=screen)
        print_table(_advice_table(one), console=screen)
    else:
        print_table(shares_table(checkup), optional=("such as",), console=screen)
        sick = [each for each in checkup.runs if each.findings]
        notes = rows_note(min(_MAX_ROWS, len(sick)), len(sick), "runs with findings", "the worst first")
        print_table(_runs_table(sick[:_MAX_ROWS]), notes=notes, console=screen)
    for note in checkup.notes:
        write_stdout("".join(f"{line}\n" for line in folded("note", note, screen.width, 6)))


def _findings_table(examined: Examined) -> Table:
    """Return the findings of one run."""
    return [
        {
            "symptom": finding.id,
            "severity": severity_in_words(finding.severity),
            "why": finding.why,
            "steps": steps_in_words(finding.evidence).partition(" ")[2],
            "evidence": numbers_in_words(finding.evidence),
        }
        for finding in examined.findings
    ]


def _advice_table(examined: Examined) -> Table:
    """Return the advice for one run, with the numbers that `task.apply` takes."""
    return [
        {"advice": str(number), "overrides": " ".join(words), "for": finding.id}
        for number, (finding, words) in enumerate(numbered_advice(examined), 1)
    ]


def _runs_table(examined: list[Examined]) -> Table:
    """Return the findings of several runs."""
    return [
        {
            "run": each.run.folder.name,
            "findings": counts_in_words(each.findings),
            "symptoms": ", ".join(finding.id for finding in each.findings),
        }
        for each in examined
    ]
