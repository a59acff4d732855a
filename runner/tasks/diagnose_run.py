"""The doctor at the end of a run: `diagnosis.json`, TensorBoard's TEXT page, and a few lines on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from runner import user_paths
from runner.comparing import runs
from runner.decoration import decorative
from runner.doctor import Finding, diagnose, read_history
from runner.doctor.executable import with_executable_advice
from runner.doctor.words import command_words, folded, markdown_findings, severity_in_words
from runner.engine.logs.event_file import append_values
from runner.engine.saving.folder import read_environment
from runner.engine.saving.storage import write_atomic
from runner.errors import StorageError, escaped
from runner.printing import write_stdout
from runner.registry import MAIN
from runner.status import Status
from runner.tasks.job import Job, Vary
from runner.tasks.next_steps import command_line
from runner.tasks.run_folder import Run

_DIAGNOSIS = "diagnosis.json"
_SCHEMA = 1
# Findings that are printed at the end of a run
_MOST_SHOWN = 3
# Columns of the labels of a run's last lines, and of the lines at most
_LABEL, _WIDTH = 14, 120


def plan_diagnosis(run: Run, job: Job, vary: Vary | None) -> None:
    """Plan to diagnose a run after its result is written, if the config asks for it; a failure of it is one line.

    A run that diverged is diagnosed, too; one that failed or was interrupted is not.
    """
    if job.config["doctor"] == "auto" and job.world.is_main:
        run.until_end.callback(_diagnose_and_show, run, job, vary)


def diagnose_if_missing(run: Run, job: Job, vary: Vary | None) -> None:
    """Diagnose a run that ended earlier, if a kill came between its result and its diagnosis."""
    wanted = job.config["doctor"] == "auto" and job.world.is_main and run.read_only is None
    if wanted and not user_paths.exists(run.folder / _DIAGNOSIS, error=StorageError):
        _diagnose_and_show(run, job, vary)


def _diagnose_and_show(run: Run, job: Job, vary: Vary | None) -> None:
    """Diagnose a run that has a result; print the findings of one that diverged, keep those of others to print later.

    The trials of a sweep print nothing.
    """
    if not run.result.status.is_result:
        return
    with decorative(f"{_DIAGNOSIS}: not written"):
        found, overrides = _findings(run, job, vary)
        _save(run, found)
        if not job.is_trial:
            run.findings.extend(_lines(run.folder, job, found, overrides))
            if run.result.status is Status.DIVERGED:
                write_stdout("".join(f"{line}\n" for line in run.findings))


def _findings(run: Run, job: Job, vary: Vary | None) -> tuple[list[Finding], Sequence[str]]:
    """Return the findings of a run whose files are written, and the words of its command line."""
    made = runs.Run(folder=run.folder, config=job.config, result=run.result, environment=read_environment(run.folder))
    history = read_history(made)
    found = diagnose(history)
    if vary is not None and found:
        found = with_executable_advice(found, job.config, vary)
    return found, history.facts.overrides


def _save(run: Run, findings: Sequence[Finding]) -> None:
    """Write the diagnosis into the folder of a run, and into its event file."""
    record = {"schema": _SCHEMA, "findings": [each.to_record() for each in findings]}
    write_atomic(run.folder / _DIAGNOSIS, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
    with decorative("TensorBoard's doctor: not written"):
        append_values(run.folder, run.result.steps, {"doctor": markdown_findings(findings)})


def _lines(folder: Path, job: Job, findings: Sequence[Finding], overrides: Sequence[str]) -> list[str]:
    """Return the lines about the worst findings, none if there are none."""
    if not findings:
        return []
    # The first steps of a run have no use for rich
    from runner.rich_console import make_console

    width = min(_WIDTH, make_console().width)
    groups = [key for key, value in job.config.items() if isinstance(value, dict)]
    lines = []
    for each in findings[:_MOST_SHOWN]:
        lines += folded(severity_in_words(each.severity), escaped(f"{each.id}: {each.why}"), width, _LABEL)
        if each.advice and MAIN not in job.config["plugins"]:
            words = command_words(overrides, each.advice[0], groups, job.folders[1:])
            lines.append(f"{'  try':<{_LABEL}}{command_line(*words)}")
    if MAIN not in job.config["plugins"]:
        given = [word for word in overrides if word.startswith("plugins=")]
        lines.append(f"{'doctor':<{_LABEL}}{command_line('task=doctor', f'run={folder}', *given)}")
    return lines
