"""Results of `task=evaluate`: the scores of the classes on the screen, and the files in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.decoration import decorative
from runner.engine.evaluation import Assessment
from runner.engine.figures.picture import draw_all, save_all
from runner.engine.metrics import confusion
from runner.engine.saving.storage import printable, write_atomic
from runner.ensembles.figures import ensemble_figure
from runner.ensembles.report import EnsembleReport
from runner.ensembles.report_pages import html_report, markdown_report
from runner.errors import CheckpointError, Locked, StorageError
from runner.printing import visible, write_stdout
from runner.tasks.class_scores import show_classes, show_confusion
from runner.tasks.final_scores import pictures_of, rows_of, sums_of, tables_of
from runner.tasks.job import Job
from runner.tasks.next_steps import command_line
from runner.tasks.predictions import about_predictions, write_predictions
from runner.tasks.report import print_progress
from runner.tasks.run_folder import existing_run
from runner.tasks.temperature import Scaling, scaling_picture, scaling_record
from runner.tasks.trained.saved_run import SavedRun


def show_classes_of(classes: Sequence[str], found: Assessment) -> None:
    """Print the scores of each class, and the confusion matrix if the screen has room for it."""
    with decorative("scores of the classes: not shown"):
        show_classes(rows_of(classes, found))
        if (matrix := sums_of(found, confusion)) is not None:
            show_confusion(matrix, classes)


@dataclass(frozen=True, kw_only=True)
class About:
    """The split of an evaluation as files name it, the classes, and the fingerprint of the data."""

    split: str
    classes: Sequence[str]
    fingerprint: str
    saves: bool


def save_evaluation(
    saved: SavedRun,
    job: Job,
    found: Assessment,
    about: About,
    *,
    scaling: Scaling | None,
    report: EnsembleReport | None,
) -> None:
    """Save predictions, figures and tables in the run folder; one line if the run goes on or may not be written.

    The setting `figures` of the command says whether figures are saved; a temperature always is.
    """
    draws, keeps = job.config["figures"] == "always", about.saves and found.outputs is not None
    if not (keeps or draws or scaling):
        return
    folder, names = saved.folder, list[str]()
    of = about_predictions(
        saved.config["predict"],
        step=saved.step,
        weights=str(saved.path.relative_to(folder)),
        data=about.fingerprint,
        classes=about.classes,
    )
    try:
        with existing_run(folder) as run:
            run.check_writable()
            if keeps:
                names.append(str(write_predictions(folder, about.split, found, of).relative_to(folder)))
            if scaling:
                names.append(f"temperature_{about.split}.json")
                write_atomic(folder / names[-1], scaling_record(scaling, {"split": about.split, **of}))
            if draws:
                names += save_all(folder, _drawn(job, found, about, scaling, report))
    except (StorageError, Locked, CheckpointError) as error:
        print_progress(f"the evaluation is not saved: {error}")
        return
    if names:
        write_stdout(f"saved in      {printable(folder)}: {', '.join(names)}\n")


def _drawn(
    job: Job, found: Assessment, about: About, scaling: Scaling | None, report: EnsembleReport | None
) -> dict[str, bytes]:
    """Return the tables, figures and pages of an evaluation by the names of their files."""
    pictures = pictures_of(about.classes, found, about.split)
    if scaling:
        pictures[f"calibration_{about.split}_temperature.png"] = scaling_picture(scaling, about.split)
    stem = f"{report.title.removeprefix('predict=')}_{about.split}" if report else ""
    if report:
        pictures[f"{stem}.png"] = ensemble_figure(report)
    drawn = tables_of(about.classes, found, about.split) | draw_all(pictures)
    if report:
        command, picture = command_line(*job.overrides), f"{stem}.png"
        with decorative(f"{stem}.html: not written"):
            drawn[f"{stem}.md"] = visible(
                markdown_report(report, picture if picture in drawn else None, command)
            ).encode()
            drawn[f"{stem}.html"] = visible(html_report(report, drawn.get(picture), command)).encode()
    return drawn
