"""task=probe_stages: how well a linear classifier reads the classes from the features of each stage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from runner.assemble import Experiment, assemble
from runner.assemble.data import eval_batch
from runner.assemble.load_data import Loaded, load
from runner.assemble.threads import begin
from runner.components.data.splitting import split_order, stratified_sample
from runner.components.model.stages import stages
from runner.decoration import decorative
from runner.engine.batches import EvalBatches, place_split
from runner.engine.contracts import Split
from runner.engine.figures.picture import draw_all, save_all
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import CheckpointError, ConfigError, DataError, Locked, StorageError
from runner.printing import write_stdout
from runner.registry import register
from runner.schema import Range
from runner.tasks.job import Config, Job
from runner.tasks.linear_probe import fit_linear_probe
from runner.tasks.report import print_progress
from runner.tasks.run_folder import existing_run, run_folder
from runner.tasks.saved_data import lies_elsewhere
from runner.tasks.stage_features import StageReader, features_of, groups_that_fit, make_reader
from runner.tasks.stage_report import StageReport, StageScore, show_stages, stages_figure, stages_record
from runner.tasks.trained.saved_run import facts_of, read_member, restore_member
from runner.tasks.transferability import h_score, logme

_NAME = "stages"


@register("task")
def probe_stages(job: Job, *, examples: Annotated[int, Range(2)]) -> int:
    """Fit a linear classifier on the features of each stage of `run=<folder>`, or of the weights of `init_from=`.

    The features of a stage are what the next stage reads, averaged over positions. Prints a table of validation
    accuracy against depth, with LogME and the H-score, and saves it with a plot: in the folder of the run, or in a new
    folder. `run=` with another `data=` reads other data of the same shape, whose classes may differ. The test split is
    never read.
    """
    if job.config["run"]:
        return _probe_run(job, examples)
    if job.config["init_from"] is None:
        raise ConfigError("run: got null; expected a run folder, or weights: task=probe_stages init_from=<run or file>")
    experiment = assemble(job.config)
    source = source_of(experiment, job.config)
    reader = source.reader()
    with run_folder(job, experiment) as run:
        for line in experiment.summary:
            print_progress(f"  {line}")
        report = probe_all(source, reader, examples)
        write_atomic(run.folder / f"{_NAME}.json", stages_record(report))
        run.afterwards.draw(f"{_NAME}.png", stages_figure(report), tag=_NAME)
    _show(report, run.folder, [f"{_NAME}.json", *run.afterwards.saved])
    return 0


def _probe_run(job: Job, examples: int) -> int:
    """Probe the selected weights of a run, and save the report in its folder."""
    run = read_member(Path(job.config["run"]), job, key="run", other=("data",))
    begin(run.config["threads"])
    loaded = load(run.config)
    facts = run.facts or facts_of(loaded, run.data)
    if loaded.data.shape != facts.shape:
        here, there = ("x".join(map(str, shape)) for shape in (loaded.data.shape, facts.shape))
        raise DataError(f"data: examples have shape {here}; expected {there} as in the training of {run.folder}")
    predictor = restore_member(run, facts, threads=True)
    source = StageSource(
        model=predictor.model,
        preprocess=predictor.preprocess,
        autocast=predictor.autocast,
        device=predictor.device,
        loaded=loaded,
        weights=printable(run.folder),
        data_name=run.config["data"]["name"],
    )
    report = probe_all(source, source.reader(), examples)
    other = run.other_data or (lies_elsewhere(run.folder, run.config) and bool(run.data.changes(loaded.fingerprint)))
    name = f"{_NAME}-data{loaded.fingerprint.id[:4]}" if other else _NAME
    _show(report, run.folder, _save(run.folder, name, report))
    return 0


@dataclass(frozen=True, kw_only=True)
class StageSource:
    """A model and the data whose classes its stages are to tell apart.

    Attributes:
        model: The model with its weights, on the device.
        preprocess: Turns raw images into its input.
        autocast: Returns a context manager for mixed precision.
        device: Where it runs.
        loaded: The data, whose test split is never opened.
        weights: What the weights are, for messages.
        data_name: The name of the data set.
    """

    model: nn.Module
    preprocess: Any
    autocast: Callable[[], AbstractContextManager[None]]
    device: torch.device
    loaded: Loaded
    weights: str
    data_name: str

    def reader(self) -> StageReader:
        """Return what reads the features of the stages; raises ConfigError if there is no stage below the head."""
        found = stages(self.model, self.loaded.data.shape)
        if len(found) < 2:
            raise ConfigError("model: got one with a single stage, the head; expected stages below it to probe")
        return make_reader(self.model, found, self.autocast)

    def batches(self, split: Split, index: Tensor) -> EvalBatches:
        """Return some examples of a split, not augmented."""
        data = self.loaded.data
        placed = place_split(split, data.placement, self.device)
        batch = eval_batch(data.batch_size)
        return EvalBatches(placed, batch=batch, preprocess=self.preprocess, device=self.device, index=index)


def source_of(experiment: Experiment, config: Config) -> StageSource:
    """Return the model of an experiment with the weights of `init_from`, and its data."""
    return StageSource(
        model=experiment.learner.model,
        preprocess=experiment.batches.preprocess,
        autocast=experiment.recipe.autocast,
        device=experiment.device,
        loaded=experiment.loaded,
        weights=str(config["init_from"]),
        data_name=config["data"]["name"],
    )


def probe_all(source: StageSource, reader: StageReader, examples: int) -> StageReport:
    """Return the scores of all stages below the head, on at most `examples` examples of both splits.

    Raises:
        ConfigError: `examples` is too small for the classes, or the features do not fit into memory.
        DataError: The training examples have a single class.
    """
    data = source.loaded.data
    train, val = (_chosen(split, examples) for split in (data.train, data.val))
    labels = data.val.labels[val]
    if _classes_in(data.train.labels[train]) < 2:
        raise DataError("data: the training examples have one class; expected two or more to tell apart")
    splits = source.batches(data.train, train), source.batches(data.val, val)
    scores: list[StageScore] = []
    for widths in groups_that_fit(reader, data.shape, source.device, len(train) + len(val)):
        (features, own), (others, truth) = (features_of(reader, each, widths) for each in splits)
        scores += [_score_stage(name, (features[name], own), (others[name], truth)) for name in widths]
    known = {each.stage for each in scores}
    return StageReport(
        scores=scores,
        weights=source.weights,
        data=(source.data_name, source.loaded.fingerprint.id),
        train=len(train),
        val=len(val),
        chance=float(labels.bincount().max() / len(labels)),
        left_out=[name for name in reader.places if name not in known],
    )


def _chosen(split: Split, examples: int) -> Tensor:
    """Return the positions of the examples of a split that are used: all, or a fixed sample with all classes."""
    count, present = len(split.labels), _classes_in(split.labels)
    if examples >= count:
        return torch.arange(count)
    if examples < present:
        raise ConfigError(f"task.examples: got {examples}, must be >= {present}, one example of each class")
    return stratified_sample(split.labels, split_order(range(count)), examples)


def _classes_in(labels: Tensor) -> int:
    """Return the number of classes that have an example."""
    return int((labels.bincount() > 0).sum())


def _score_stage(name: str, train: tuple[Any, Any], val: tuple[Any, Any]) -> StageScore:
    """Return the scores of the features of a stage, given with their labels for training and validation."""
    width = train[0].shape[1]
    if not (np.isfinite(train[0]).all() and np.isfinite(val[0]).all()):
        return StageScore(name, width)
    features = train[0].astype(np.float64)
    found = fit_linear_probe((features, train[1]), (val[0].astype(np.float64), val[1]))
    return StageScore(name, width, found, logme(features, train[1]), h_score(features, train[1]))


def _save(folder: Path, name: str, report: StageReport) -> list[str]:
    """Save table and plot in the folder of a run, and return the names; a line if it goes on or is read-only."""
    try:
        with existing_run(folder) as run:
            run.check_writable()
            write_atomic(folder / f"{name}.json", stages_record(report))
            return [f"{name}.json", *save_all(folder, draw_all({f"{name}.png": stages_figure(report)}))]
    except (StorageError, Locked, CheckpointError) as error:
        print_progress(f"the scores of the stages are not saved: {error}")
        return []


def _show(report: StageReport, folder: Path, saved: list[str]) -> None:
    """Print the table, and what was saved where."""
    with decorative("table of the stages: not shown"):
        show_stages(report)
    if saved:
        write_stdout(f"saved in      {printable(folder)}: {', '.join(saved)}\n")
