"""The scores at the end of a run: those of the selected weights on validation and, if asked for, on the test split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from runner.assemble import Experiment
from runner.decoration import decorative
from runner.engine.batches import EvalBatches
from runner.engine.evaluation import (
    ENSEMBLE,
    SNAPSHOT,
    VALIDATION,
    Assessment,
    Predicting,
    add_snapshots,
    assess,
)
from runner.engine.figures.classes import calibration_figure, confusion_figure
from runner.engine.figures.picture import Picture
from runner.engine.learner import Learner
from runner.engine.metrics import (
    Metrics,
    Sums,
    calibration,
    class_counts,
    confusion,
    errors_by_confidence,
    risk_coverage,
)
from runner.engine.saving import checkpoint
from runner.engine.saving.folder import SCHEMA
from runner.engine.saving.storage import write_atomic
from runner.engine.snapshots import MeanPrediction
from runner.tasks.class_scores import ClassRow, class_rows, classes_csv, confusion_csv, worst_classes
from runner.tasks.job import Job
from runner.tasks.predictions import about_predictions, are_wanted, write_predictions
from runner.tasks.run_folder import Run

# Classes up to which the confusion matrix is computed: it has 4 MB then
_MOST_CLASSES = 1000


def record_scores(run: Run, job: Job, experiment: Experiment) -> None:
    """Select the best checkpoint, score it on validation and once on the test split if the config says so.

    Fills in the result, saves the predictions and plans the figures. A run that saves neither, as a trial of a sweep,
    has the scores of its validations only.
    """
    learner, settings, result = experiment.learner, experiment.settings, run.result
    step = learner.patience.best_step
    selected = checkpoint.weights_file(run.folder, step)
    result.weights, result.schema, result.scores = str(selected.relative_to(run.folder)), SCHEMA, {}
    for split in experiment.validation:
        result.scores[split] = {
            "best": _scores_of_split(split, learner.patience.best),
            "last": _scores_of_split(split, learner.patience.last),
        }
    _record_snapshots(run, learner)
    is_complete = settings.predictions != "never" or settings.figures == "always"
    reads_test = settings.test == "end" and experiment.test is not None
    if is_complete or reads_test:
        learner.load_weights(checkpoint.read_weights(selected))
    metrics = experiment.final_metrics() if is_complete else experiment.recipe.metrics
    if is_complete:
        found = _score_and_save(run, job, experiment, "val", experiment.validation["val"], metrics)
        result.scores["val"]["best"] = {**found.scores, **result.scores["val"]["best"]}
        _plan_figures(run, experiment, found, step)
    if reads_test and experiment.test is not None:
        result.test_reads += 1
        batches = experiment.test()
        result.scores["test"] = _score_and_save(run, job, experiment, "test", batches, metrics).scores
        result.scores["test"] |= _scores_of_snapshots(experiment, batches)


def _record_snapshots(run: Run, learner: Learner) -> None:
    """Fill in the files of the snapshots, and the scores on validation of the newest one and of all together."""
    taken, last = learner.snapshots.until(learner.step), learner.patience.last
    if not learner.snapshots.dates:
        return
    run.result.snapshots = [str(checkpoint.weights_file(run.folder, s).relative_to(run.folder)) for s in taken]
    if not taken:
        run.lines.append("no snapshots: the run ended before the first one was due")
        return
    for name in (SNAPSHOT, ENSEMBLE):
        found = _scores_of_split(f"{VALIDATION}/{name}", {**last, "step": taken[-1]})
        run.result.scores[VALIDATION][name] = found | ({"members": len(taken)} if name == ENSEMBLE else {})


def _scores_of_snapshots(experiment: Experiment, batches: EvalBatches) -> dict[str, dict[str, float]]:
    """Return the scores of the newest snapshot and of all together on a split; nothing if there are none."""
    learner, mean = experiment.learner, MeanPrediction()
    taken = learner.snapshots.until(learner.step)
    if not taken:
        return {}
    add_snapshots(experiment.recipe, learner.snapshots, taken, mean, batches, experiment.recipe.metrics)
    return {
        SNAPSHOT: {**mean.newest, "step": taken[-1]},
        ENSEMBLE: {**mean.scores, "step": taken[-1], "members": len(taken)},
    }


def score_split(
    parts: Predicting, model: nn.Module, batches: EvalBatches, metrics: Metrics, *, keep: bool
) -> Assessment:
    """Return the scores of a split and of its classes, with the predictions if `keep`."""
    more = (class_counts, *((confusion,) if metrics.classes <= _MOST_CLASSES else ()))
    return assess(parts, model, batches, replace(metrics, more=more), keep=keep)


def rows_of(classes: Sequence[str], found: Assessment) -> list[ClassRow]:
    """Return the scores of each class."""
    counts, matrix = sums_of(found, class_counts), sums_of(found, confusion)
    assert counts is not None
    return class_rows(classes, counts, matrix)


def sums_of(found: Assessment, sums: Sums) -> NDArray[np.float64] | None:
    """Return the sums of a function over a split, None if they were not computed."""
    total = found.totals.get(sums)
    return None if total is None else total.numpy()


def pictures_of(classes: Sequence[str], found: Assessment, split: str) -> dict[str, Picture]:
    """Return the figures of a split by the names of their files."""
    pictures: dict[str, Picture] = {}
    name = {"val": "validation"}.get(split, split)
    accuracy, count = found.scores["accuracy"], len(found.ids)
    if (matrix := sums_of(found, confusion)) is not None:
        title = f"{name}: accuracy {accuracy:.4f} of {count} examples"
        pictures[f"confusion_{split}.png"] = confusion_figure(matrix, classes, title=title)
    if (bins := sums_of(found, calibration)) is not None:
        title = f"{name}: ECE {found.scores.get('ece', math.nan):.4f}, {count} examples"
        wrong = found.totals.get(errors_by_confidence)
        risks = None if wrong is None else risk_coverage(wrong).numpy()
        pictures[f"calibration_{split}.png"] = calibration_figure(bins, risks, title=title)
    return pictures


def tables_of(classes: Sequence[str], found: Assessment, split: str) -> dict[str, bytes]:
    """Return the tables of the classes of a split as CSV, by the names of their files."""
    tables = {f"classes_{split}.csv": classes_csv(rows_of(classes, found))}
    if (matrix := sums_of(found, confusion)) is not None:
        tables[f"confusion_{split}.csv"] = confusion_csv(matrix, classes)
    return tables


def _score_and_save(
    run: Run, job: Job, experiment: Experiment, split: str, batches: EvalBatches, metrics: Metrics
) -> Assessment:
    """Return the scores of a split, and save its predictions in the main process; a failure to save is one line."""
    learner = experiment.learner
    keep = are_wanted(experiment.settings.predictions, split, batches, metrics.classes)
    found = score_split(experiment.recipe, learner.average.module, batches, metrics, keep=keep)
    if found.outputs is None or not job.world.is_main:
        return found
    with decorative(f"predictions/{split}.safetensors: not written"):
        about = about_predictions(
            job.config["predict"],
            step=learner.patience.best_step,
            weights=str(run.result.weights),
            data=experiment.fingerprint.id,
            classes=experiment.classes,
        )
        write_predictions(run.folder, split, found, about)
    return found


def _plan_figures(run: Run, experiment: Experiment, found: Assessment, step: int) -> None:
    """Plan figures and tables of the classes on validation, and the line about them."""
    if worst := worst_classes(rows_of(experiment.classes, found)):
        run.lines.append(f"worst classes {worst} (accuracy on validation)")
    if experiment.settings.figures != "always":
        return
    for name, picture in pictures_of(experiment.classes, found, "val").items():
        run.afterwards.draw(name, picture, tag=f"classes/{Path(name).stem}", step=step)
    for name, content in tables_of(experiment.classes, found, "val").items():
        run.afterwards.save(name, partial(_write, name=name, content=content))


def _write(folder: Path, *, name: str, content: bytes) -> None:
    """Write a file into a folder."""
    write_atomic(folder / name, content)


def _scores_of_split(split: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores of one split, with their step."""
    found = {tag.removeprefix(f"{split}/"): value for tag, value in scores.items() if tag.startswith(f"{split}/")}
    # Those of snapshots have a place of their own
    found = {name: value for name, value in found.items() if "/" not in name}
    return {**found, "step": scores["step"]} if "step" in scores else found
