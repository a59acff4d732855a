"""Step 6: the run doctor on the curves of the winner and of the other trainings of the search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.comparing.runs import find_runs
from runner.doctor.checkup import Checkup, Examined, examine, shares
from runner.doctor.executable import with_executable_advice
from runner.doctor.finding import Finding, Severity
from runner.doctor.words import numbers_in_words, severity_in_words
from runner.engine.saving.storage import write_atomic
from runner.printing import counted
from runner.protocol.context import Context
from runner.protocol.outcome import Advice, Criterion, Level, StepResult

_NO_RUNS = "there are no trainings to look at: it reads those of step 4 or 5 (task.steps)"
# Symptoms of the other trainings that the report names
_MOST = 5


@dataclass(frozen=True, kw_only=True)
class CheckCurves:
    """Step 6. It has no knobs."""

    number: int = 6
    name: str = "check_curves"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return no training."""
        return 0, 0.0

    def run(self, context: Context) -> StepResult:
        """Examine the runs, and return what the doctor finds in those of the winner as criteria and advice."""
        curves = context.facts.get("curves")
        if not curves:
            return StepResult(step=self.name, headline=_NO_RUNS, skipped=_NO_RUNS)
        winner, others = (_examined(context, curves[name]) for name in ("winner", "others"))
        _write(context, {"winner": winner, "others": others})
        found = _by_symptom(winner.runs)
        criteria = [_criterion(each, len(winner.runs)) for each in found]
        bad = sum(each.level is Level.WARN for each in criteria)
        total = f"{counted(len(winner.runs), 'training')} of the winner"
        healthy = Criterion(
            name="no errors or warnings",
            value=f"{bad} in {total}",
            threshold="0",
            level=Level.WARN if bad else Level.PASS,
            why="; ".join(winner.notes),
            source="docs/doctor.md",
        )
        return StepResult(
            step=self.name,
            headline=f"{total}: {', '.join(each[0].id for each in found) or 'no findings'}",
            criteria=[healthy, *criteria, *_of_others(others)],
            advice=_advice(found, context),
            measurements={"winner": {each[0].id: len(each) for each in found}, "examined": len(others.runs)},
        )


def _examined(context: Context, folders: Sequence[str]) -> Checkup:
    """Return the checkup of some runs, which are siblings."""
    if not folders:
        return Checkup(runs=[], notes=[])
    top = context.folder.parent.parent
    found = find_runs([str(top / each) for each in folders])
    return examine(found.runs, lambda config, words: context.vary(config, words))


def _by_symptom(runs: Sequence[Examined]) -> list[list[Finding]]:
    """Return the findings of some runs, those of one symptom together, the worst symptom first."""
    groups: dict[str, list[Finding]] = {}
    for each in runs:
        for finding in each.findings:
            groups.setdefault(finding.id, []).append(finding)
    by_severity = [sorted(each, key=lambda finding: finding.severity.rank) for each in groups.values()]
    return sorted(by_severity, key=lambda each: (each[0].severity.rank, -len(each)))


def _criterion(findings: Sequence[Finding], runs: int) -> Criterion:
    """Return the criterion of a symptom; a hint does not change the status of the step."""
    worst = findings[0]
    return Criterion(
        name=worst.id,
        value=f"{severity_in_words(worst.severity)} in {len(findings)} of {runs}: {numbers_in_words(worst.evidence)}",
        threshold="not found",
        level=Level.HINT if worst.severity is Severity.HINT else Level.WARN,
        why=worst.why,
        source=worst.source,
    )


def _of_others(others: Checkup) -> list[Criterion]:
    """Return a remark on the symptoms of the other trainings, none if they have no symptoms."""
    found = shares(others)[:_MOST]
    if not found:
        return []
    words = [f"{each.id} {len(each.runs)}" + _where(each.shared) for each in found]
    return [
        Criterion(
            name="other trainings of the search",
            value="; ".join(words),
            threshold=f"of {len(others.runs)}",
            level=Level.HINT,
            why="",
        )
    ]


def _where(shared: Mapping[str, str]) -> str:
    """Return the values that all runs with a symptom have, and no other."""
    return f" (all with {', '.join(f'{key}={value}' for key, value in shared.items())})" if shared else ""


def _advice(found: Sequence[Sequence[Finding]], context: Context) -> list[Advice]:
    """Return the first advice on each symptom that the config, with what is handed on, takes and does not have yet."""
    worst = [each[0] for each in found]
    executable = with_executable_advice(worst, context.config, lambda config, words: context.vary(config, words))
    return [Advice(text=f"{each.id}: {each.why}", overrides=each.advice[0]) for each in executable if each.advice]


def _write(context: Context, checkups: Mapping[str, Checkup]) -> None:
    """Write `diagnosis.json` into the folder of the step."""
    record = {
        name: {each.run.folder.name: [finding.to_record() for finding in each.findings] for each in checkup.runs}
        for name, checkup in checkups.items()
    }
    write_atomic(
        context.folder.parent / "diagnosis.json", json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"
    )
