"""The reports on an ensemble: on the screen, and as pages, a picture and an event file in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from runner.decoration import decorative
from runner.engine.figures.picture import draw_all, save_all
from runner.engine.logs.log import open_logs
from runner.engine.saving.storage import write_atomic
from runner.ensembles.calibration import PredictionScores
from runner.ensembles.figures import ensemble_figure
from runner.ensembles.report import EnsembleReport
from runner.ensembles.report_pages import board_values, html_report, markdown_report
from runner.ensembles.statistics import EnsembleStatistics
from runner.printing import counted, visible
from runner.tasks.ensembling.combining import Made
from runner.tasks.job import Job


def report_of(
    made: Made, split: str, names: Sequence[str], statistics: EnsembleStatistics, scores: PredictionScores
) -> EnsembleReport:
    """Return the report on a split.

    Args:
        made: The ensemble or the soup.
        split: The split in words.
        names: The names of the models that were scored.
        statistics: The statistics without the temperature.
        scores: The scores with it.
    """
    soup, used = made.how == "weights", sum(weight > 0 for weight in statistics.weights)
    temperature = None if made.temperature.value == 1 else made.temperature.value
    return EnsembleReport(
        title=f"{'soup' if soup else 'ensemble'} of {counted(used, 'model')}",
        split=split,
        names=tuple(names),
        statistics=statistics,
        how=made.how,
        cost=1 if soup else used,
        temperature=temperature,
        calibrated=None if temperature is None else scores,
        fitted_on=made.temperature.fitted_on if split == "validation" else "half of validation",
        member="model",
        members="models",
        best="best model by validation",
        expected="" if soup else EnsembleReport.expected,
        product="soup" if soup else "ensemble",
        notes=(f"members: {made.selection.words}", *made.lines),
    )


def save_reports(folder: Path, job: Job, reports: Mapping[str, EnsembleReport]) -> list[str]:
    """Write the report on each split as Markdown, HTML and a picture, and an event file; return the pages."""
    command = f"python -m runner {' '.join(map(shlex.quote, job.overrides))}"
    written = []
    for split, report in reports.items():
        name = "ensemble" if split == "val" else f"ensemble_{split}"
        picture = f"{name}.png"
        drawn = draw_all({picture: ensemble_figure(report)}) if job.config["figures"] != "never" else {}
        saved = save_all(folder, drawn)
        with decorative(f"{name}.md: not written"):
            text = markdown_report(report, picture if saved else None, command)
            write_atomic(folder / f"{name}.md", visible(text).encode())
        with decorative(f"{name}.html: not written"):
            text = html_report(report, drawn.get(picture), command)
            write_atomic(folder / f"{name}.html", visible(text).encode())
            written.append(f"{name}.html")
    with decorative("event file: not written"):
        _write_events(folder, reports["val"])
    return written


def _write_events(folder: Path, report: EnsembleReport) -> None:
    """Write the report for TensorBoard: its text, and the scores by number of members."""
    with closing(open_logs(folder, positions=None, step=0)) as log:
        for step, values in board_values(report).items():
            log.add(step, values)
