"""A checkup as Markdown with separate pictures, as one HTML page with everything inside, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from runner.comparing.html import html_document, html_items, html_picture, html_table
from runner.comparing.tables import Table, escape_markdown, markdown_table
from runner.doctor.checkup import Checkup, Examined, shares
from runner.doctor.figures import diagnosis_figure
from runner.doctor.finding import Finding
from runner.doctor.words import (
    counts_in_words,
    numbers_in_words,
    severity_in_words,
    steps_in_words,
)
from runner.engine.figures.picture import draw_all
from runner.engine.saving.storage import printable
from runner.printing import counted
from runner.registry import names
from runner.status import Status

# Runs with curves on the page, the worst first, and runs with findings in words
_MOST_DRAWN, _MOST_RUNS = 12, 100
# Runs that the row of a symptom names
_MOST_NAMED = 3
# The command that follows a piece of advice of a run
_Command = Callable[[Examined, tuple[str, ...]], str]


def headline(checkup: Checkup) -> str:
    """Return what was examined and how much was found, in one line."""
    sick = [each for each in checkup.runs if each.findings]
    if len(checkup.runs) == 1:
        (one,) = checkup.runs
        found = counts_in_words(one.findings) or f"no findings, {counted(len(names('symptom')), 'symptom')} checked"
        return f"{printable(one.run.folder)}, {_state_in_words(one)}: {found}"
    found = counts_in_words([finding for each in sick for finding in each.findings])
    return f"{counted(len(checkup.runs), 'run')}: {len(sick)} with findings{f' ({found})' if found else ''}"


def _state_in_words(examined: Examined) -> str:
    """Return how far a run came: `done after 570 steps`, `diverged after 2 of 570 steps`."""
    result, planned = examined.run.result, examined.history.facts.steps
    all_of = "" if result.steps >= planned else f" of {planned}"
    word = "stopped early" if result.status is Status.STOPPED else str(result.status)
    return f"{word} after {result.steps}{all_of} {'step' if result.steps == 1 and not all_of else 'steps'}"


def shares_table(checkup: Checkup) -> Table:
    """Return how often each symptom occurs, with hyperparameters that only its runs have, if there are any."""
    found = shares(checkup)
    values = [", ".join(f"{key}={value}" for key, value in share.shared.items()) for share in found]
    return [
        {
            "symptom": share.id,
            "severity": severity_in_words(share.severity),
            "runs": f"{len(share.runs)} of {len(checkup.runs)}",
            **({"only with": own} if any(values) else {}),
            "such as": _some([each.run.folder.name for each in share.runs]),
        }
        for share, own in zip(found, values, strict=True)
    ]


def _some(given: Sequence[str]) -> str:
    """Return the first of some names, with the number of the others."""
    more = len(given) - _MOST_NAMED
    return ", ".join(given[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def draw_pictures(checkup: Checkup) -> dict[str, bytes]:
    """Return the curves of the worst runs by the name of the picture, as SVG, without those that cannot be drawn."""
    return draw_all(
        {_picture_name(i): diagnosis_figure(each.history, each.findings) for i, each in enumerate(_drawn(checkup), 1)}
    )


def _drawn(checkup: Checkup) -> list[Examined]:
    """Return the runs whose curves are drawn; a run that is alone is drawn in any case."""
    if len(checkup.runs) == 1:
        return checkup.runs
    return [each for each in checkup.runs if each.findings][:_MOST_DRAWN]


def _picture_name(number: int) -> str:
    """Return the name of a run's picture, by its place on the page."""
    return f"curves-{number}"


def _evidence_in_words(finding: Finding) -> str:
    """Return the numbers, the steps and the curves that a finding rests on, in one line."""
    numbers = numbers_in_words(finding.evidence)
    return (
        f"{f'{numbers}; ' if numbers else ''}{steps_in_words(finding.evidence)} of {', '.join(finding.evidence.tags)}"
    )


def markdown_page(checkup: Checkup, drawn: Mapping[str, bytes], command: _Command, given: str) -> str:
    """Return a checkup as Markdown; its pictures are `<name>.svg` in the same folder."""
    lines = ["# Diagnosis", "", f"{escape_markdown(headline(checkup))}.", ""]
    lines += [f"> **Note:** {escape_markdown(note)}\n>" for note in checkup.notes]
    if len(checkup.runs) > 1:
        lines += ["", *(markdown_table(shares_table(checkup)) or ["No findings."])]
    for number, each in enumerate(_described(checkup), 1):
        if len(checkup.runs) > 1:
            lines += ["", f"## {escape_markdown(printable(each.run.folder))}", "", f"{_state_in_words(each)}."]
        if _picture_name(number) in drawn:
            lines += ["", f"![curves]({_picture_name(number)}.svg)"]
        for place, finding in enumerate(each.findings, 1):
            title = f"{place}. {severity_in_words(finding.severity)}: {escape_markdown(finding.id)}"
            lines += ["", f"### {title}", "", escape_markdown(finding.why), ""]
            lines += [f"- {label}: {escape_markdown(text)}" for label, text in _details(finding)]
            lines += [f"- try: `{command(each, words)}`" for words in finding.advice]
    lines += ["", f"Generated by `{given}`."]
    return "\n".join(lines) + "\n"


def _described(checkup: Checkup) -> list[Examined]:
    """Return the runs with a section of their own."""
    return checkup.runs if len(checkup.runs) == 1 else [each for each in checkup.runs if each.findings][:_MOST_RUNS]


def _details(finding: Finding) -> list[tuple[str, str]]:
    """Return what a page says of a finding besides its sentence and its advice, with labels."""
    found = [("evidence", _evidence_in_words(finding)), ("would prove it", finding.probe), ("source", finding.source)]
    return [(label, text) for label, text in found if text]


def html_page(checkup: Checkup, drawn: Mapping[str, bytes], command: _Command, given: str) -> str:
    """Return a checkup as one HTML page without scripts that loads nothing."""
    parts = [f"<h1>Diagnosis</h1><p>{escape(headline(checkup))}.</p>"]
    parts += [f'<p class="warn">{escape(note)}</p>' for note in checkup.notes]
    if len(checkup.runs) > 1:
        parts.append(html_table(shares_table(checkup)))
    for number, each in enumerate(_described(checkup), 1):
        if len(checkup.runs) > 1:
            parts.append(f"<h2>{escape(printable(each.run.folder))}</h2><p>{escape(_state_in_words(each))}.</p>")
        if picture := drawn.get(_picture_name(number)):
            parts.append(html_picture("curves with marks at the findings", picture, "svg+xml"))
        parts += [_html_finding(place, finding, each, command) for place, finding in enumerate(each.findings, 1)]
    healthy = [printable(each.run.folder) for each in checkup.runs if not each.findings]
    if healthy and len(checkup.runs) > 1:
        parts.append(f"<h2>Without findings</h2>{html_items(healthy[:_MOST_RUNS])}")
    parts.append(f"<footer>Generated by <code>{escape(given)}</code></footer>")
    return html_document("Diagnosis", parts)


def _html_finding(number: int, finding: Finding, examined: Examined, command: _Command) -> str:
    """Return one finding as HTML."""
    items = [f"<li>{escape(label)}: {escape(text)}</li>" for label, text in _details(finding)]
    items += [f"<li>try: <code>{escape(command(examined, words))}</code></li>" for words in finding.advice]
    title = f"{number}. {severity_in_words(finding.severity)}: {finding.id}"
    return f"<h3>{escape(title)}</h3><p>{escape(finding.why)}</p><ul>{''.join(items)}</ul>"


def checkup_record(checkup: Checkup) -> dict[str, Any]:
    """Return a checkup as JSON values."""
    return {
        "schema": 1,
        "runs": [
            {
                "folder": printable(each.run.folder),
                "status": str(each.run.result.status),
                "findings": [finding.to_record() for finding in each.findings],
            }
            for each in checkup.runs
        ],
        "symptoms": {share.id: len(share.runs) for share in shares(checkup)},
    }
