"""The scores of the bank as Markdown, for docs/doctor.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {
    "detected": "faulty runs with a finding",
    "warned": "faulty runs with a warning or an error",
    "cause_in_first_two": "the cause is among the first two findings",
    "cause": "the cause is among all findings",
    "harmed_detected": "runs that the fault harmed, with a finding",
    "harmed_warned": "runs that the fault harmed, with a warning or an error",
    "harmed_cause_in_first_two": "runs that the fault harmed: the cause is among the first two findings",
    "precision": "runs with a finding, healthy ones included: one of the first two names the cause",
    "false_findings": "healthy runs with any finding, hints included",
    "false_warnings": "healthy runs with a warning or an error",
}


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of all faults together by part, then that of each fault on held-out runs."""
    lines = [f"| of | {' | '.join(name.replace('_', ' ') for name in found)} |", "|---|" + "---|" * len(found)]
    lines += [
        f"| {title} | {' | '.join(_cell(each[key]) for each in found.values())} |" for key, title in TITLES.items()
    ]
    lines += ["", "| alarm, held out | faulty runs | runs that the fault harmed | healthy runs |", "|---|---|---|---|"]
    for level, row in found["held_out"]["levels"].items():
        cells = " | ".join(_cell(row[key]) for key in ("detected", "harmed_detected", "false_alarms"))
        lines.append(f"| {_level(float(level))} | {cells} |")
    lines += ["", "| fault, held out | harmed | finding | warning | recall of the cause | precision of the cause |"]
    lines += ["|---|---|---|---|---|---|"]
    for fault, row in found["held_out"]["faults"].items():
        keys = ("detected", "warned", "cause_in_first_two", "precision")
        cells = " | ".join(_cell(row[key]) for key in keys)
        lines.append(f"| `{fault}` | {row['harmed']} of {row['detected']['n']} | {cells} |")
    return "\n".join(lines)


def _level(least: float) -> str:
    """Return in words what counts as an alarm."""
    if least in (0, 1):
        return "any finding" if least == 0 else "a warning or an error"
    return f"or a hint of confidence {least:g} and more"


def _cell(share: Mapping[str, Any]) -> str:
    """Return a share with its interval, `34 of 40, 85 % (71 to 93)`; a dash of nothing."""
    if not share["n"]:
        return "-"
    percent = 100 * share["hits"] / share["n"]
    return f"{share['hits']} of {share['n']}, {percent:.0f} % ({100 * share['low']:.0f} to {100 * share['high']:.0f})"
