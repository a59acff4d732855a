"""task=kfold: cross-validation, a run for each stratified fold of the training and the validation examples."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from runner import user_paths
from runner.assemble import assemble
from runner.assemble.folds import all_examples
from runner.directions import monitor_in
from runner.engine.monitor import Monitor
from runner.engine.saving import storage, tensor_file
from runner.engine.saving.folder import Result
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import CheckpointError, ConfigError
from runner.printing import counted, write_stdout
from runner.registry import register
from runner.schema import Range
from runner.screen_tables import print_table
from runner.status import Status
from runner.tasks.job import Job, Launch, LaunchedRun, Vary
from runner.tasks.predictions import predictions_file
from runner.tasks.report import print_progress
from runner.tasks.run_folder import continued_run_folder

# The split in the name of the file of predictions
_SPLIT = "out_of_fold"
_TRAINING = {"task": "train", "name": None, "test": "never", "figures": "never", "predictions": "always"}
_NO_TEST = (
    "This is no independent test: each run chose its best step on the fold that it is scored on. "
    "The test split was not read."
)


class _Outputs(NamedTuple):
    """The predictions for all N examples, each by the run that did not train on it."""

    values: Tensor  # (N, K) float32
    name: str  # log_p, or logits if the loss has no probabilities


@register("task")
def kfold(job: Job, vary: Vary, launch: Launch, *, folds: Annotated[int, Range(2)]) -> int:
    """Train a run for each of k stratified folds, and report mean and standard deviation over the folds.

    The folds are parts of the training and the validation split together, the same for every configuration. The test
    split is never read. Leaves `kfold.json`, `predictions/out_of_fold.safetensors` with a prediction for each example
    by the run that did not train on it, and the trainings as ordinary runs in `runs/`. After an interrupt, the same
    command or `resume=<folder>` continues.
    """
    _check(job)
    first = vary(job.config, {**_TRAINING, "folds": folds, "fold": 1})
    # Reject unsupported combinations before a folder exists
    experiment = assemble(job.config)
    examples, places = all_examples(experiment.loaded.data, first)
    assemble(first)
    variants = [first, *(vary(first, {"fold": i + 1}) for i in range(1, folds))]
    with continued_run_folder(job, experiment) as run:
        print_progress(f"  {counted(folds, 'fold')} of {counted(len(places), 'example')}")
        results = launch(variants, run.folder / "runs")
        monitor = monitor_in(job.config)
        rows = [_row(i, result, int((places == i).sum()), monitor) for i, result in enumerate(results)]
        outputs = _collect(results, places)
        report = {"monitor": monitor.tag, **_summary(rows, monitor), **_pooled(outputs, examples.labels), "folds": rows}
        write_atomic(run.folder / "kfold.json", json.dumps(report, indent=1, allow_nan=False).encode())
        if outputs:
            _write(run.folder, outputs, examples.labels, places, experiment.classes)
    print_table(rows, notes=[*_lines(report, monitor), _NO_TEST])
    write_stdout(f"saved in      {printable(run.folder)}\n")
    return 0


def _check(job: Job) -> None:
    """Raise ConfigError if a command asks for a test score, or for one fold."""
    if "test" in job.given and job.config["test"] == "end":
        raise ConfigError(
            "test: got end, but task=kfold never reads the test split, because its folds are no independent test; "
            "train once with what you choose, and test that run"
        )
    if job.config["folds"] is not None:
        raise ConfigError("folds: task=kfold trains all folds; give their number as task.folds, and no fold")


def _row(i: int, result: Result, examples: int, monitor: Monitor) -> dict[str, Any]:
    """Return the scores of a fold, None if its run diverged."""
    diverged = result.status is Status.DIVERGED
    best = {} if diverged else result.scores["val"]["best"]
    score = None if diverged else result.scores[monitor.split]["best"][monitor.metric]
    found = {monitor.metric: score, "accuracy": best.get("accuracy"), "loss": best.get("loss")}
    return {"fold": i + 1, "examples": examples, **found, "step": best.get("step"), "status": str(result.status)}


def _summary(rows: Sequence[dict[str, Any]], monitor: Monitor) -> dict[str, Any]:
    """Return mean and standard deviation (divided by n - 1) of the monitored score over the folds with a score."""
    scores = [row[monitor.metric] for row in rows if row[monitor.metric] is not None]
    sd = statistics.stdev(scores) if len(scores) > 1 else None
    return {"n": len(scores), "mean": statistics.fmean(scores) if scores else None, "sd": sd}


def _collect(results: Sequence[LaunchedRun], places: Tensor) -> _Outputs | None:
    """Return the predictions of all folds in the order of the examples; None if a run diverged."""
    if any(result.status is Status.DIVERGED for result in results):
        return None
    values, name = None, "log_p"
    for i, result in enumerate(results):
        tensors = _predictions_of(result.folder, i + 1)
        name = "log_p" if "log_p" in tensors else "logits"
        found, members = tensors[name], (places == i).nonzero().flatten()
        if found.shape[0] != len(members):
            raise CheckpointError(f"{printable(result.folder)}: the predictions of fold {i + 1} are of other examples")
        values = found.new_zeros(len(places), found.shape[1]) if values is None else values
        values[members[tensors["ids"]]] = found
    return None if values is None else _Outputs(values, name)


def _predictions_of(folder: Path, fold: int) -> dict[str, Tensor]:
    """Return the predictions that a run saved for its fold."""
    path = predictions_file(folder, "val")
    if not user_paths.is_file(path, error=CheckpointError):
        raise CheckpointError(f"{printable(folder)}: fold {fold} has no predictions; remove this run to train it again")
    return dict(tensor_file.parse(tensor_file.read_bytes(path), path.name))


def _pooled(outputs: _Outputs | None, labels: Tensor) -> dict[str, Any]:
    """Return accuracy and negative log-likelihood of the predictions for all examples together."""
    if outputs is None:
        return {_SPLIT: None}
    found: dict[str, Any] = {
        "examples": len(labels),
        "accuracy": float((outputs.values.argmax(1) == labels).double().mean()),
    }
    if outputs.name == "log_p":
        nll = -outputs.values.double().gather(1, labels[:, None]).mean()
        # JSON has no infinity
        found["nll"] = float(nll) if torch.isfinite(nll) else None
    return {_SPLIT: found}


def _write(folder: Path, outputs: _Outputs, labels: Tensor, places: Tensor, classes: Sequence[str]) -> None:
    """Write the predictions; `ids` count the training examples, then those of validation."""
    path = predictions_file(folder, _SPLIT)
    with suppress(FileExistsError):
        storage.make_folder(path.parent)
    storage.remove_temporary(path.parent)
    tensors = {"ids": torch.arange(len(labels)), "labels": labels, "fold": places + 1, outputs.name: outputs.values}
    about = {"split": _SPLIT, "classes": list(classes), "independent_test": False}
    write_atomic(path, save(tensors, metadata={"about": json.dumps(about)}))


def _lines(report: dict[str, Any], monitor: Monitor) -> list[str]:
    """Return the summary in words."""
    if not report["n"]:
        return ["no fold has a score: all runs diverged"]
    spread = "" if report["sd"] is None else f", sd {report['sd']:.4f}"
    lines = [f"{monitor.tag}: mean {report['mean']:.4f}{spread} over {counted(report['n'], 'fold')}"]
    if pooled := report[_SPLIT]:
        nll = f", nll {pooled['nll']:.4f}" if pooled.get("nll") is not None else ""
        lines.append(f"out of fold: accuracy {pooled['accuracy']:.4f}{nll} on {counted(pooled['examples'], 'example')}")
    else:
        lines.append("no predictions out of fold: a run diverged")
    return lines
