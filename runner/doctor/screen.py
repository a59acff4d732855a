"""A checkup on the screen: the findings of one run with its numbered advice, or the symptoms of several runs."""

from __future__ import annotations

from collections.abc import Iterator

from runner.comparing.tables import Table
from runner.doctor.checkup import Checkup, Examined
from runner.doctor.finding import Finding
from runner.doctor.page import headline, shares_table
from runner.doctor.words import counts_in_words, folded, numbers_in_words, severity_in_words, steps_in_words
from runner.printing import write_stdout
from runner.rich_console import make_console
from runner.screen_tables import print_table, rows_note

# Columns at most; longer lines are hard to read
_WIDTH = 120
# Columns of a severity, and of a number of advice
_LABEL, _NUMBER = 9, 4
# Rows of a table
_MAX_ROWS = 30


def numbered_advice(examined: Examined) -> list[tuple[Finding, tuple[str, ...]]]:
    """Return each piece of advice for a run once, with the first finding that has it, in the order of their numbers."""
    first: dict[tuple[str, ...], Finding] = {}
    for finding in examined.findings:
        for words in finding.advice:
            first.setdefault(words, finding)
    return [(finding, words) for words, finding in first.items()]


def print_checkup(checkup: Checkup) -> None:
    """Print a checkup on standard output, at most 120 columns wide."""
    screen = make_console(pipe_width=None)
    screen.width = min(_WIDTH, screen.width)
    _print_lines(folded("", headline(checkup), screen.width, 0))
    if len(checkup.runs) == 1:
        _print_lines(_lines_of(checkup.runs[0], screen.width))
    else:
        print_table(shares_table(checkup), optional=("such as",), console=screen)
        sick = [each for each in checkup.runs if each.findings]
        notes = rows_note(min(_MAX_ROWS, len(sick)), len(sick), "runs with findings", "the worst first")
        print_table(_runs_table(sick[:_MAX_ROWS]), notes=notes, console=screen)
    for note in checkup.notes:
        _print_lines(folded("note", note, screen.width, _LABEL))


def _print_lines(lines: list[str] | Iterator[str]) -> None:
    """Print lines."""
    write_stdout("".join(f"{line}\n" for line in lines))


def _lines_of(examined: Examined, width: int) -> Iterator[str]:
    """Yield the lines about each finding of a run: what, where, why, the numbers, and the advice."""
    numbers = {words: number for number, (_, words) in enumerate(numbered_advice(examined), 1)}
    for finding in examined.findings:
        yield ""
        label = severity_in_words(finding.severity)
        yield from folded(label, f"{finding.id}, {steps_in_words(finding.evidence)}", width, _LABEL)
        yield from folded("", finding.why, width, _LABEL)
        if evidence := numbers_in_words(finding.evidence):
            yield from folded("", f"({evidence})", width, _LABEL)
        for words in finding.advice:
            yield f"{'':<{_LABEL}}{numbers[words]:<{_NUMBER}}{' '.join(words)}"
    if examined.findings:
        yield ""


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
