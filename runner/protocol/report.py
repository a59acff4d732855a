"""The report of the protocol: on the terminal, as Markdown, and as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from runner.comparing.html import html_document, html_items, html_picture, html_table
from runner.comparing.tables import escape_markdown, markdown_table
from runner.printing import write_stdout
from runner.protocol.outcome import Level, StepResult
from runner.screen_tables import print_table

_TITLES = {
    "check_init": "Step 1: initial loss",
    "overfit": "Step 2: overfit a small sample",
    "find_lr": "Step 3: learning rates",
    "coarse": "Step 4: coarse search",
    "refine": "Step 5: refining search",
    "check_curves": "Step 6: curves",
    "goto": "Step 7: one change a round",
}
_NO_PROOF = "A pass does not prove that labels and inputs are right: permuted labels overfit as fast."
_NO_TEST = "The test split was not read."


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report shows.

    Attributes:
        results: The steps that ended, in order.
        notes: Lines about pinned keys and steps that were not begun.
        commands: Commands to copy, with what each does.
        sure: How sure the result is, in a sentence.
        about: What was checked: model, data and so on, in a line.
        test: The score on the test split, in a line; empty if it was not read.
    """

    results: Sequence[StepResult]
    notes: Sequence[str] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    sure: str = ""
    about: str = ""
    test: str = ""


def _summary_rows(results: Sequence[StepResult]) -> list[dict[str, str]]:
    """Return a row per step."""
    return [
        {
            "step": each.step,
            "status": str(each.status),
            "trainings": str(each.trainings),
            "seconds": f"{each.seconds:.1f}",
            "found": each.headline,
        }
        for each in results
    ]


def _criteria_rows(result: StepResult) -> list[dict[str, str]]:
    """Return a row per criterion of a step."""
    return [
        {"check": each.name, "outcome": str(each.level), "value": each.value, "expected": each.threshold}
        for each in result.criteria
    ]


def _reasons(result: StepResult) -> list[str]:
    """Return what did not pass and why, the worst first, and then remarks of what passed."""
    order = (Level.FAIL, Level.WARN, Level.HINT, Level.SKIP, Level.PASS)
    found = sorted((each for each in result.criteria if each.why), key=lambda each: order.index(each.level))
    return [f"{each.level}: {each.name}: {each.why}" for each in found]


def _advice_lines(result: StepResult) -> list[str]:
    """Return the advice of a step with its overrides."""
    return [f"{each.text} {' '.join(each.overrides)}".rstrip() for each in result.advice]


def show(report: Report) -> None:
    """Print the report: per step a table of what was checked, _reasons, advice; at the end what to do."""
    for result in report.results:
        title = f"{_TITLES.get(result.step, result.step)}: {result.status}"
        notes = [result.headline, *_reasons(result), *(f"try: {line}" for line in _advice_lines(result))]
        if result.criteria:
            print_table(_criteria_rows(result), title=title, notes=notes)
        else:
            write_stdout("".join(f"{line}\n" for line in (title, *notes)))
        print_table(result.table)
        write_stdout("\n")
    if len(report.results) > 1:
        # The text on the screen is the same in a repetition
        left_out = ("found", "seconds")
        rows = [
            {key: value for key, value in row.items() if key not in left_out} for row in _summary_rows(report.results)
        ]
        print_table(rows, title="protocol")
    for line in _last_lines(report):
        write_stdout(f"{line}\n")


def _last_lines(report: Report) -> list[str]:
    """Return the lines below all tables."""
    lines = [*report.notes, *filter(None, [report.sure]), *_proof(report), report.test or _NO_TEST]
    return [*lines, *(f"{what:<13} {command}" for what, command in report.commands.items())]


def _proof(report: Report) -> list[str]:
    """Return what a passed overfit does not show."""
    passed = any(each.step == "overfit" and each.status in (Level.PASS, Level.WARN) for each in report.results)
    return [_NO_PROOF] if passed else []


def markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """Return the report as Markdown; `pictures` are the files of the pictures by the name of their step."""
    lines = ["# Protocol", "", escape_markdown(report.about), "", *markdown_table(_summary_rows(report.results))]
    for result in report.results:
        lines += ["", f"## {_TITLES.get(result.step, result.step)}: {result.status}", ""]
        lines += [escape_markdown(result.headline), "", *markdown_table(_criteria_rows(result)), ""]
        lines += [f"- {escape_markdown(line)}" for line in _reasons(result)]
        lines += [f"- try: {escape_markdown(line)}" for line in _advice_lines(result)]
        lines += ["", *markdown_table([dict(row) for row in result.table])]
        lines += ["", f"![{result.step}]({pictures[result.step]})"] if result.step in pictures else []
    lines += ["", "## What follows", "", *(f"- {escape_markdown(line)}" for line in _sentences(report))]
    lines += [f"- {what}: `{command}`" for what, command in report.commands.items()]
    return "\n".join(lines) + "\n"


def _sentences(report: Report) -> list[str]:
    """Return the sentences at the end of a report."""
    return [*report.notes, *filter(None, [report.sure]), *_proof(report), report.test or _NO_TEST]


def html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Return the report as one HTML page without scripts that loads nothing; `pictures` are PNG by step."""
    parts = [f"<h1>Protocol</h1><p>{escape(report.about)}</p>", html_table(_summary_rows(report.results))]
    for result in report.results:
        parts.append(f"<h2>{escape(_TITLES.get(result.step, result.step))}: {result.status}</h2>")
        parts.append(f"<p>{escape(result.headline)}</p>")
        parts += [f'<p class="warn">{escape(each.name)}: {escape(each.why)}</p>' for each in result.failures]
        parts.append(html_table(_criteria_rows(result)))
        lines = [*_reasons(result), *(f"try: {line}" for line in _advice_lines(result))]
        parts.append(html_items(lines) if lines else "")
        parts.append(html_table([dict(row) for row in result.table]) if result.table else "")
        if result.step in pictures:
            parts.append(html_picture(_TITLES.get(result.step, result.step), pictures[result.step], "png"))
    commands = "".join(f"<li>{escape(w)}: <code>{escape(c)}</code></li>" for w, c in report.commands.items())
    parts.append(f"<h2>What follows</h2>{html_items(_sentences(report))}<ul>{commands}</ul>")
    return html_document("Protocol", parts)
