"""The doctor's look at finished runs together: the findings of each, and how often each symptom occurs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.comparing.groups import format_value
from runner.comparing.runs import Run
from runner.doctor.diagnosis import diagnose
from runner.doctor.executable import with_executable_advice
from runner.doctor.finding import Finding, Severity
from runner.doctor.history import History, read_history
from runner.engine.saving.storage import printable
from runner.errors import CheckpointError, ConfigError, RunnerError
from runner.status import Status

_Vary = Callable[[dict[str, Any], Sequence[str]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One run with its curves and its findings, the worst first."""

    run: Run
    history: History
    findings: list[Finding]

    @property
    def severity(self) -> Severity | None:
        """The worst severity, None for a healthy run."""
        return self.findings[0].severity if self.findings else None


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """Some runs, the worst first, and notes on what was left out."""

    runs: list[Examined]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class _Share:
    """How often a symptom occurs.

    Attributes:
        id: The symptom.
        severity: Its worst severity.
        runs: The runs that show it.
        shared: Hyperparameters that differ between all runs, with values that these runs have and no healthy one has.
    """

    id: str
    severity: Severity
    runs: list[Examined]
    shared: dict[str, str]


def examine(runs: Sequence[Run], vary: _Vary) -> Checkup:
    """Return the findings of runs; the runs of one folder and one data set are siblings, which rules may compare.

    Raises ConfigError or CheckpointError, in one line, for a run that has not ended or has no curves, if it is the only
    one; several runs are read without it.
    """
    notes, found = list[str](), list[tuple[Run, History]]()
    for run in runs:
        try:
            found.append((run, _read(run)))
        except RunnerError as error:
            if len(runs) == 1:
                raise
            notes.append(f"left out: {error}")
    if not found:
        raise ConfigError(f"runs: none of the {len(runs)} runs can be read; the first one: {notes[0]}")
    examined = [_examine(run, history, found, vary, notes) for run, history in found]
    return Checkup(runs=sorted(examined, key=_badness), notes=list(dict.fromkeys(notes)))


def _read(run: Run) -> History:
    """Return the curves of a run; raises an error unless it has ended and has some."""
    if run.result.status is Status.RUNNING:
        raise ConfigError(f"{printable(run.folder)}: has not ended (its status is running); wait for it, or resume it")
    history = read_history(run)
    if not history.curves and run.result.status is not Status.DIVERGED:
        raise CheckpointError(f"{printable(run.folder)}: its metrics.jsonl has no numbers")
    return history


def _examine(
    run: Run, history: History, all_runs: Sequence[tuple[Run, History]], vary: _Vary, notes: list[str]
) -> Examined:
    """Return one run with its findings; a note says if the config itself is refused, and so all advice."""
    same = (run.folder.parent, run.data)
    others = [each for other, each in all_runs if other is not run and (other.folder.parent, other.data) == same]
    findings = diagnose(replace(history, siblings=tuple(others)))
    if findings:
        try:
            vary(run.config, [])
        except RunnerError as error:
            notes.append(f"{printable(run.folder)}: no advice, because this version refuses its config ({error})")
        findings = with_executable_advice(findings, run.config, vary)
    return Examined(run=run, history=history, findings=findings)


def _badness(examined: Examined) -> tuple[int, int]:
    """Return the place of a run in the order of a list, the worst first."""
    worst = examined.severity
    return (len(Severity) if worst is None else worst.rank, -len(examined.findings))


def shares(checkup: Checkup) -> list[_Share]:
    """Return how often each symptom occurs, the worst and most frequent first."""
    by_id: dict[str, list[tuple[Examined, Finding]]] = {}
    for each in checkup.runs:
        for finding in each.findings:
            by_id.setdefault(finding.id, []).append((each, finding))
    found = [
        _Share(
            id=name,
            severity=min((finding.severity for _, finding in pairs), key=lambda severity: severity.rank),
            runs=[each for each, _ in pairs],
            shared=_shared([each.run for each, _ in pairs], [each.run for each in checkup.runs]),
        )
        for name, pairs in by_id.items()
    ]
    return sorted(found, key=lambda share: (share.severity.rank, -len(share.runs), share.id))


def _shared(sick: Sequence[Run], runs: Sequence[Run]) -> dict[str, str]:
    """Return the hyperparameters whose value all sick runs have, and none of the others; none of a single run."""
    others = [run for run in runs if run not in sick]
    if len(sick) < 2 or not others:
        return {}
    found = {}
    for key in sick[0].hparams:
        values = {repr(run.hparams.get(key)) for run in sick}
        if len(values) == 1 and not values & {repr(run.hparams.get(key)) for run in others}:
            found[key] = format_value(sick[0].hparams[key])
    return found
