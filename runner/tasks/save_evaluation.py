"""Results of `task=evaluate`: the scores of the classes on the screen, and the files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.decoration import decorative
from runner.engine.evaluation import Assessment
from runner.engine.figures.picture import draw_all, save_all
from runner.engine.metrics import confusion
from runner.engine.saving.storage import printable
from runner.errors import CheckpointError, Locked, StorageError
from runner.printing import write_stdout
from runner.tasks.class_scores import show_classes, show_confusion
from runner.tasks.final_scores import pictures_of, rows_of, sums_of, tables_of
from runner.tasks.predictions import about_predictions, write_predictions
from runner.tasks.report import print_progress
from runner.tasks.run_folder import existing_run
from runner.tasks.trained.saved_run import SavedRun


def show_classes_of(classes: Sequence[str], found: Assessment) -> None:
    """Print the scores of each class, and the confusion matrix if the screen has room for it."""
    with decorative("scores of the classes: not shown"):
        show_classes(rows_of(classes, found))
        if (matrix := sums_of(found, confusion)) is not None:
            show_confusion(matrix, classes)


def save_evaluation(
    saved: SavedRun,
    command: Mapping[str, Any],
    found: Assessment,
    *,
    split: str,
    classes: Sequence[str],
    fingerprint: str,
) -> None:
    """Save predictions, figures and tables in the run folder; one line if the run goes on or may not be written.

    `command` is the config of the command line, whose `figures` says whether these are drawn.
    """
    draws = command["figures"] == "always"
    if found.outputs is None and not draws:
        return
    folder, names = saved.folder, list[str]()
    about = about_predictions(
        saved.config["predict"],
        step=saved.step,
        weights=str(saved.path.relative_to(folder)),
        data=fingerprint,
        classes=classes,
    )
    try:
        with existing_run(folder) as run:
            run.check_writable()
            if found.outputs is not None:
                names.append(str(write_predictions(folder, split, found, about).relative_to(folder)))
            if draws:
                pictures = draw_all(pictures_of(classes, found, split))
                names += save_all(folder, tables_of(classes, found, split) | pictures)
    except (StorageError, Locked, CheckpointError) as error:
        print_progress(f"the evaluation is not saved: {error}")
        return
    if names:
        write_stdout(f"saved in      {printable(folder)}: {', '.join(names)}\n")
