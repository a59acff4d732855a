"""task=evaluate: score a finished run again, with the weights that it selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from runner import numerics
from runner.assemble import Experiment, assemble
from runner.assemble.load_data import load
from runner.engine.batches import EvalBatches
from runner.engine.evaluation import evaluate
from runner.engine.saving import checkpoint, storage
from runner.engine.saving.folder import RESULT, Result, read_result, write_result
from runner.engine.state_dict import StateDict
from runner.errors import CheckpointError, ConfigError, DataError, StorageError
from runner.notebook.book import record
from runner.registry import register
from runner.tasks.job import Config, Job
from runner.tasks.report import print_progress, show_scores
from runner.tasks.run_folder import existing_run
from runner.tasks.saved_config import MAY_CHANGE, saved_config
from runner.tasks.saved_data import SavedData, evaluated_data, lies_elsewhere, saved_data

_MAY_CHANGE = ("task", "predict", *MAY_CHANGE)
# Attempts to read a checkpoint of a run that goes on
_ATTEMPTS = 3


@register("task", name="evaluate")
def evaluate_task(job: Job, *, split: Literal["test", "val", "train"]) -> int:
    """Print accuracy and loss of `run=<folder>` on a split; each read of the test split is counted in its result."""
    if not job.config["run"]:
        raise ConfigError("run: got null, must be the run folder to evaluate: run=outputs/<name>")
    folder = Path(job.config["run"])
    config = saved_config(str(folder), job, key="run", may_change=_MAY_CHANGE)
    result = read_result(folder)
    path, weights, meta = _selected(folder, result) if result.weights else _newest(folder)
    accept = config["resume_numerics"] == "new"
    numerics.check_unchanged(config, numerics.version_in(meta, path), path, accept=accept, scores_only=True)
    experiment = _assemble(config, saved_data(folder, result, meta))
    if wrong := checkpoint.mismatch(experiment.learner.weights(), weights):
        raise CheckpointError(f"{path} is of another model: {wrong}")
    experiment.learner.load_weights(weights)
    counted = False
    if split == "test":
        # Check the files before the read is counted
        experiment.check_test()
        counted = _count_test_read(folder)
    scores = evaluate(experiment.recipe, experiment.learner, _open_split(experiment, split))
    if counted:
        record(folder, Path(config["outputs"]))
    show_scores(folder, split, scores, path)
    return 0


def _count_test_read(folder: Path) -> bool:
    """Count a read of the test split in the result; return False, after a line, if the folder is read-only.

    Raises Locked if another process holds the folder.
    """
    try:
        with existing_run(folder) as run:
            run.check_writable()
            run.result.test_reads += 1
            write_result(folder, run.result)
    except StorageError as error:
        if not storage.is_read_only(error):
            raise
        print_progress(f"this read of the test split is not counted in {RESULT}: {error}")
        return False
    return True


def _assemble(config: Config, saved: SavedData) -> Experiment:
    """Return the experiment, with the labels that the model of the run knows; print lines about its data."""
    moved, accept = lies_elsewhere(saved.folder, config), config["resume_data"] == "new"
    loaded, lines = evaluated_data(saved, load(config), moved=moved, accept=accept)
    for line in lines:
        print_progress(line)
    return assemble(config, fit=False, loaded=loaded)


def _selected(folder: Path, result: Result) -> tuple[Path, StateDict, dict[str, Any]]:
    """Return path, tensors and `meta` of the weights that a run selected."""
    path = folder / str(result.weights)
    return path, checkpoint.read_weights(path), checkpoint.meta_of(path)


def _newest(folder: Path) -> tuple[Path, StateDict, dict[str, Any]]:
    """Return path, tensors and `meta` of the newest checkpoint of a run that has not selected any yet.

    The run may go on meanwhile, and remove the checkpoints that were listed.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            snapshot = checkpoint.load(folder)
            if snapshot is None:
                raise CheckpointError(f"{folder}: has no checkpoint yet")
            return checkpoint.weights_file(folder, snapshot.step), snapshot.weights, snapshot.meta
        except CheckpointError:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _open_split(experiment: Experiment, split: str) -> EvalBatches:
    """Return the batches of a split; of the training split as many examples as validation has."""
    if split != "test":
        return experiment.validation["train_eval" if split == "train" else split]
    if experiment.test is None:
        raise DataError(f"task.split: got test, but {experiment.data.found.no_test or 'the data have no test split'}")
    return experiment.test()
