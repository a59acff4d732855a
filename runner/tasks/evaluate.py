"""task=evaluate: score a finished run again, with the weights that it selected, on its data or on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from runner.assemble.data import split_batches
from runner.assemble.load_data import Loaded, load
from runner.assemble.metrics import final_metrics
from runner.assemble.predictor import DataFacts, Predictor
from runner.assemble.threads import begin
from runner.decoration import decorative
from runner.engine.batches import EvalBatches
from runner.engine.data_summary import summarize
from runner.engine.evaluation import Assessment
from runner.ensembles.calibration import Array, Labels
from runner.ensembles.report import EnsembleReport
from runner.ensembles.report_pages import print_report
from runner.errors import DataError
from runner.notebook.book import record
from runner.registry import register
from runner.tasks.final_scores import score_split
from runner.tasks.job import Job
from runner.tasks.predictions import are_wanted
from runner.tasks.report import print_progress, show_scores
from runner.tasks.run_folder import count_test_reads
from runner.tasks.save_evaluation import About, save_evaluation, show_classes_of
from runner.tasks.saved_data import evaluated_data, lies_elsewhere
from runner.tasks.temperature import (
    Scaling,
    check_temperature,
    fit_scaling,
    predict_validation,
    saved_validation,
    show_scaling,
)
from runner.tasks.trained.read_run import read_run, restore_predictor
from runner.tasks.trained.saved_run import SavedRun, facts_of
from runner.tasks.views_gain import view_recorder


@register("task", name="evaluate")
def evaluate_task(job: Job, *, split: Literal["test", "val", "train"], temperature: bool) -> int:
    """Print the scores of `run=<folder>` on a split and of each class, and save predictions and figures in the folder.

    Each read of the test split is counted in its result.
    With `data.root=` or another `data=` the split is that of other data, which is counted nowhere. Their classes must
    have the names of the run's.
    With `temperature` also the scores after temperature scaling, fitted on validation. A prediction method with several
    views or passes, such as `predict=mc_dropout`, is compared with the plain prediction.
    """
    run = read_run(job, task="evaluate", other=("data",), more=("metric", "predictions", "figures"))
    begin(run.config["threads"])
    loaded, own = _load_data(run)
    predictor = restore_predictor(run, _facts(run, loaded, own=own), threads=True)
    validation = _to_fit(run, predictor, loaded, split, own=own) if temperature else None
    counted = False
    if split == "test" and own:
        # Check the files before the read is counted
        loaded.data.check_test()
        counted = count_test_reads([run.folder])
    name = split if own else f"{split}-data{loaded.fingerprint.id[:4]}"
    batches = _open_split(loaded, split, predictor)
    classes = predictor.facts.classes
    saves = are_wanted(job.config["predictions"], name, batches, len(classes))
    about = About(split=name, classes=classes, fingerprint=loaded.fingerprint.id, saves=saves)
    found, report = _score(run, predictor, batches, split=name, keep=saves or temperature)
    if counted:
        record(run.folder, Path(run.config["outputs"]))
    scaling = fit_scaling(found, validation, split=split, seed=run.config["seed"]) if temperature else None
    _show(run, found, split, about, scaling, report)
    save_evaluation(run, job, found, about, scaling=scaling, report=report)
    return 0


def _to_fit(
    run: SavedRun, predictor: Predictor, loaded: Loaded, split: str, *, own: bool
) -> tuple[Array, Labels] | None:
    """Return the predictions for validation that fit a temperature, None if validation is what is scored."""
    check_temperature(predictor)
    if own and split == "val":
        return None
    return predict_validation(predictor, _open_split(loaded, "val", predictor)) if own else saved_validation(run)


def _score(
    run: SavedRun, predictor: Predictor, batches: EvalBatches, *, split: str, keep: bool
) -> tuple[Assessment, EnsembleReport | None]:
    """Return the evaluation of a split, with its outputs if they are to be kept, and the gain of several views."""
    metrics = final_metrics(run.config, predictor.loss, len(predictor.facts.classes))
    recorder = view_recorder(predictor, len(batches))
    parts = replace(predictor, predict=recorder) if recorder else predictor
    found = score_split(parts, predictor.model, batches, metrics, keep=keep)
    if recorder is None:
        return found, None
    name, seed = run.config["predict"]["name"], run.config["seed"]
    return found, recorder.report(found.labels, name=name, split=split, seed=seed)


def _show(
    run: SavedRun,
    found: Assessment,
    split: str,
    about: About,
    scaling: Scaling | None,
    report: EnsembleReport | None,
) -> None:
    """Print the scores of an evaluation."""
    show_scores(run.folder, split, found.scores, run.path)
    if scaling:
        show_scaling(scaling)
    show_classes_of(about.classes, found)
    if report:
        with decorative(f"gain of {report.title}: not shown"):
            print_report(report)


def _load_data(run: SavedRun) -> tuple[Loaded, bool]:
    """Return the data to score, with the labels that the model of the run knows, and True if they are the run's own.

    Prints lines about them.
    """
    accept = run.data_given or run.config["resume_data"] == "new"
    moved = run.other_data or lies_elsewhere(run.folder, run.config)
    loaded, lines, own = evaluated_data(run.data, load(run.config), moved=moved, accept=accept)
    for line in lines:
        print_progress(line)
    return loaded, own and not run.other_data


def _facts(run: SavedRun, loaded: Loaded, *, own: bool) -> DataFacts:
    """Return what the model knows of its data; raises DataError if examples of another shape are to be scored."""
    found = facts_of(loaded, run.data)
    known = run.facts
    if known is None:
        return found
    if found.shape != known.shape:
        here, there = ("x".join(map(str, shape)) for shape in (found.shape, known.shape))
        raise DataError(f"data: examples have shape {here}; expected {there} as in the training of {run.folder}")
    return found if own else replace(known, classes=found.classes)


def _open_split(loaded: Loaded, split: str, predictor: Predictor) -> EvalBatches:
    """Return the batches of a split; of the training split as many examples as validation has."""
    preprocess: Any = predictor.preprocess
    found = split_batches(loaded.data, split, preprocess, predictor.device)
    if found is None:
        reason = summarize(loaded.data).found.no_test or "the data have no test split"
        raise DataError(f"task.split: got test, but {reason}")
    return found
