"""Findings in words: for the screen, for Markdown, and the commands that follow their advice."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from runner.doctor.finding import Evidence, Finding, Severity
from runner.fold_text import fold
from runner.printing import counted

# Of a run's own words, those that belong to that run only
_OF_ONE_RUN = ("name=", "resume=", "resume_data=", "resume_numerics=", "rerun=", "note=", "sweep=", "hydra.", "hydra/")
_NAMES = {Severity.ERROR: "error", Severity.WARN: "warning", Severity.HINT: "hint"}


def command_words(
    overrides: Sequence[str], advice: Sequence[str], groups: Sequence[str], folders: Sequence[Path] = ()
) -> list[str]:
    """Return the words of a command that trains a run again with a list of advice.

    Args:
        overrides: The words of the run's own command line; those of its name and its sweep are left out, as are values
            that the advice replaces.
        advice: The overrides to apply.
        groups: The names of the groups of options: another option leaves none of the knobs of the old one.
        folders: The user's config folders.
    """
    keys = [word.partition("=")[0].lstrip("+") for word in advice]
    replaced = {*keys, *(f"{key}." for key in keys if key in groups)}

    def is_kept(word: str) -> bool:
        key = word.lstrip("+").partition("=")[0]
        dropped = key in replaced or any(each.endswith(".") and key.startswith(each) for each in replaced)
        return not dropped and not word.lstrip("+").startswith(_OF_ONE_RUN)

    given = [word for folder in folders for word in ("--config-dir", os.fspath(folder))]
    return [*given, *filter(is_kept, overrides), *advice]


def severity_in_words(severity: Severity) -> str:
    """Return a severity as a word."""
    return _NAMES[severity]


def counts_in_words(findings: Sequence[Finding]) -> str:
    """Return how many findings of each severity there are: `1 warning, 2 hints`."""
    counts = [(sum(each.severity is severity for each in findings), severity) for severity in Severity]
    return ", ".join(counted(count, _NAMES[severity]) for count, severity in counts if count)


def folded(label: str, text: str, width: int, indent: int) -> list[str]:
    """Return a text beside a label, folded to a width; further lines begin under the text."""
    lines = fold(text, max(width - indent, 20))
    return [f"{label if i == 0 else '':<{indent}}{line}" for i, line in enumerate(lines)]


def numbers_in_words(evidence: Evidence) -> str:
    """Return the numbers of a finding in one line: `start 2.31, end 0.0042`."""
    return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in evidence.numbers.items())


def steps_in_words(evidence: Evidence) -> str:
    """Return the steps of a finding: `step 3`, `steps 100-200`."""
    first, last = evidence.steps
    return f"step {first}" if first == last else f"steps {first}-{last}"


def _short(value: float) -> str:
    """Return a number in at most four digits; whole numbers in full."""
    is_whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return str(int(value)) if is_whole else f"{value:.4g}"


def markdown_findings(findings: Sequence[Finding]) -> str:
    """Return findings as Markdown, for the TEXT page of TensorBoard."""
    if not findings:
        return "No findings."
    blocks = []
    for each in findings:
        evidence = each.evidence
        lines = [
            f"**{severity_in_words(each.severity)}: {each.id}.** {each.why}",
            "",
            f"- evidence: {steps_in_words(evidence)} of {', '.join(f'`{tag}`' for tag in evidence.tags)}"
            + (f"; {numbers}" if (numbers := numbers_in_words(evidence)) else ""),
            *(f"- try: `{' '.join(words)}`" for words in each.advice),
            *([f"- would prove it: {each.probe}"] if each.probe else []),
            f"- source: {each.source}",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
