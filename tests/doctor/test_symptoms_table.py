"""The table of symptoms in docs/doctor.md is that of the rules."""

from pathlib import Path

from sample_curves import run
from test_symptoms import TABLE

from runner.registry import find

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
WORDS = {"warn": "warning", "error": "error", "hint": "hint"}


def rows():
    """Return the rows of the table: rule, its sentence, its severities, one advice, source."""
    found = {}
    for rule, changes, severity, _ in TABLE:
        function = find("symptom", rule)
        finding = function(run(**changes))
        sentence = function.__doc__.split("\n")[0].removeprefix("Return a finding if ").rstrip(".")
        advice = ", ".join(f"`{' '.join(words)}`" for words in finding.advice[:2]) or "-"
        one = found.setdefault(rule, [sentence, [], advice, finding.source])
        if WORDS[severity] not in one[1]:
            one[1].append(WORDS[severity])
        one[2] = one[2] if one[2] != "-" else advice
    return [
        f"| `{rule}` | {s} | {', '.join(sev)} | {advice} | {source} |"
        for rule, (s, sev, advice, source) in found.items()
    ]


def test_the_page_has_the_row_of_every_rule():
    assert [row for row in rows() if row not in PAGE] == []


def test_the_page_has_no_other_rule():
    table = PAGE.partition("## Symptoms")[2].partition("\n## ")[0]
    assert sum(line.startswith("| `") for line in table.splitlines()) == len(rows())
