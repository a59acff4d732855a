"""task=evaluate: score a finished run again, with the weights that it selected."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from runner import numerics
from runner.assemble import Experiment, assemble
from runner.engine.batches import EvalBatches
from runner.engine.evaluation import evaluate
from runner.engine.saving import checkpoint
from runner.engine.saving.folder import write_result
from runner.errors import CheckpointError, ConfigError, DataError
from runner.keys import settings_with
from runner.notebook.book import record
from runner.registry import register
from runner.roles import Role
from runner.tasks.job import Job
from runner.tasks.report import show_scores
from runner.tasks.run_folder import existing_run, saved_config

_MAY_CHANGE = ("task", "predict", *settings_with(Role.EXECUTION))


@register("task", name="evaluate")
def evaluate_task(job: Job, *, split: Literal["test", "val", "train"]) -> int:
    """Print accuracy and loss of `run=<folder>` on a split; each read of the test split is counted in its result."""
    if not job.config["run"]:
        raise ConfigError("run: got null, must be the run folder to evaluate: run=outputs/<name>")
    folder = Path(job.config["run"])
    config = saved_config(str(folder), job, key="run", may_change=_MAY_CHANGE)
    experiment = assemble(config, fit=False)
    if split == "test":
        # Check the files before the read is counted
        experiment.check_test()
    with existing_run(folder) as run:
        path = folder / run.result.weights if run.result.weights else _newest_weights(folder)
        accept = config["resume_numerics"] == "new"
        version = numerics.version_in(checkpoint.meta_of(path), path)
        numerics.check_unchanged(config, version, path, accept=accept, scores_only=True)
        weights = checkpoint.read_weights(path)
        if wrong := checkpoint.mismatch(experiment.learner.weights(), weights):
            raise CheckpointError(f"{path} is of another model: {wrong}")
        experiment.learner.load_weights(weights)
        if split == "test":
            run.result.test_reads += 1
            write_result(folder, run.result)
        scores = evaluate(experiment.recipe, experiment.learner, _open_split(experiment, split))
    record(folder, Path(config["outputs"]))
    show_scores(folder, split, scores, path)
    return 0


def _newest_weights(folder: Path) -> Path:
    """Return the weights of the newest checkpoint of a run that has not selected any yet."""
    snapshot = checkpoint.load(folder)
    if snapshot is None:
        raise CheckpointError(f"{folder}: has no checkpoint yet")
    return checkpoint.weights_file(folder, snapshot.step)


def _open_split(experiment: Experiment, split: str) -> EvalBatches:
    """Return the batches of a split; of the training split as many examples as validation has."""
    if split != "test":
        return experiment.validation["train_eval" if split == "train" else split]
    if experiment.test is None:
        raise DataError(f"task.split: got test, but {experiment.data.found.no_test or 'the data have no test split'}")
    return experiment.test()
