"""task=train: train, validate, select the best checkpoint, read the test split once with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from runner import numerics
from runner.assemble import Experiment, assemble, threads
from runner.assemble.load_data import Loaded, load
from runner.comparing.runs import read_overrides
from runner.engine.evaluation import evaluate
from runner.engine.figures.curves import loss_figure
from runner.engine.interruption import deferred
from runner.engine.logs.log import Log, open_logs
from runner.engine.logs.sinks import METRICS
from runner.engine.saving import checkpoint
from runner.engine.saving.checkpoint import Snapshot
from runner.engine.saving.evidence import proven
from runner.engine.saving.folder import SCHEMA, Result
from runner.engine.saving.rotation import clean
from runner.engine.train import train
from runner.errors import DataError, Diverged
from runner.registry import register
from runner.status import Status
from runner.tasks.find_folder import begun_folder, on_these_data
from runner.tasks.job import Job
from runner.tasks.report import (
    explained,
    log_end,
    log_session_end,
    log_start,
    make_console,
    print_progress,
    show_start,
    show_summary,
)
from runner.tasks.restore import restore
from runner.tasks.run_folder import Run, resumable_run, run_folder
from runner.tasks.saved_config import MAY_CHANGE, saved_config
from runner.tasks.saved_data import DATA, record_paths, resumed_data, saved_data
from runner.tasks.settings_check import check_settings
from runner.unused_settings import recipe_in

_DIVERGES_AGAIN = (
    "it diverged and will diverge again at the same step, unless device, memory_format, compile or cuda_graphs differ"
)


@register("task", name="train")
def train_task(job: Job) -> int:
    """Train a model and leave its run folder; `resume=<folder>` continues a run, as does the same trial of a sweep."""
    by_hand = job.config["resume"] is not None
    job, folder, loaded = _resumed(job) if by_hand else _begun(job)
    with ExitStack() as held:
        resumed = held.enter_context(resumable_run(folder, job, by_hand=by_hand)) if folder else None
        snapshot = checkpoint.load(folder) if folder else None
        versions = _numerics_of(resumed.folder, job.config, snapshot) if resumed and snapshot else None
        if snapshot:
            job = replace(job, config=threads.with_saved(job.config, job.overrides, snapshot.meta))
        loaded, lines = _data_of(resumed, job, snapshot, loaded or load(job.config))
        experiment = assemble(job.config, fit=snapshot is None, search=job.search, world=job.world, loaded=loaded)
        lines += check_settings(job, experiment, saved=by_hand or snapshot is not None)
        missing = _check_test_split(job, experiment)
        changed = threads.changed(snapshot.meta) if snapshot else ()
        experiment = replace(experiment, summary=[*lines, *experiment.summary, *missing, *changed])
        if resumed and snapshot:
            snapshot = restore(resumed.folder, experiment.learner, snapshot, job.config)
        is_finished = resumed is not None and proven(resumed.result, job.config["monitor"]).status.finished
        if resumed and versions:
            resumed.result.numerics = sorted({*(resumed.result.numerics or ()), *versions})
        run = resumed if resumed and is_finished else _train_from(job, experiment, resumed, snapshot)
    show_summary(run.folder, job, run.result)
    return 0


def _resumed(job: Job) -> tuple[Job, Path, None]:
    """Return the job and the folder of the run that `resume=<folder>` names."""
    folder = str(job.config["resume"])
    config = saved_config(folder, job, key="resume", may_change=MAY_CHANGE)
    return replace(job, config=config, recipe=recipe_in(read_overrides(Path(folder)))), Path(folder), None


def _begun(job: Job) -> tuple[Job, Path | None, Loaded | None]:
    """Return the job, the folder that already holds this run on these data, and the data if they had to be read."""
    if begun_folder(job) is None:
        return job, None, None
    loaded = load(job.config)
    job = on_these_data(job, loaded.fingerprint)
    return job, begun_folder(job), loaded


def _data_of(resumed: Run | None, job: Job, snapshot: Snapshot | None, loaded: Loaded) -> tuple[Loaded, list[str]]:
    """Return the data of a run, of a resumed one with the labels that its model knows, and lines about them."""
    if resumed is None:
        return loaded, []
    saved = saved_data(resumed.folder, resumed.result, snapshot.meta if snapshot else None)
    loaded, lines = resumed_data(saved, loaded, accept=job.config["resume_data"] == "new")
    if job.world.is_main and resumed.read_only is None:
        record_paths(resumed.folder, job.config)
    return loaded, lines


def _check_test_split(job: Job, experiment: Experiment) -> tuple[str, ...]:
    """Check the test split if the run will read it, and return lines for the summary.

    Raises DataError if there is none and the user has asked for it (`test=end`).
    """
    if experiment.settings.test != "end":
        return ()
    if experiment.test is not None:
        return experiment.check_test()
    reason = experiment.data.found.no_test or "the data have no test split"
    if "test" in job.given:
        raise DataError(f"test: got end, but {reason}; choose test=never, or name a labelled folder in data.splits")
    return (f"no test score: {reason}",)


def _numerics_of(folder: Path, config: Mapping[str, Any], snapshot: Snapshot) -> tuple[int, int] | None:
    """Return the numerics versions before and after a snapshot if the numbers change there, else None.

    Raises CheckpointError if they would and `resume_numerics=new` is not given, or if a newer version wrote it.
    """
    version = numerics.version_in(snapshot.meta, folder)
    accept = config["resume_numerics"] == "new"
    return (version, numerics.current()) if numerics.check_unchanged(config, version, folder, accept=accept) else None


def _train_from(job: Job, experiment: Experiment, resumed: Run | None, snapshot: Snapshot | None) -> Run:
    """Train from the snapshot or from the start, and return the run with its result."""
    diverged = resumed is not None and resumed.result.status is Status.DIVERGED
    with run_folder(job, experiment, resumed=resumed) as run:
        show_start(experiment, snapshot, resumed=resumed is not None)
        if diverged:
            print_progress(f"  {_DIVERGES_AGAIN}")
        _train_in(run, job, experiment, snapshot)
    return run


def _train_in(run: Run, job: Job, experiment: Experiment, snapshot: Snapshot | None) -> None:
    """Train in a run folder: checkpoints, logs, scores and the result."""
    learner, folder, result = experiment.learner, run.folder, run.result
    clean(folder)
    with closing(_open_run_logs(folder, experiment, snapshot)) as log:
        if not snapshot:
            log_start(log, job, experiment.fingerprint)
        try:
            status = _train_until_end(folder, experiment, log)
        except Exception:
            log_session_end(log, learner.step, succeeded=False)
            raise
        finally:
            result.steps, result.epochs = learner.step, learner.step / experiment.recipe.steps_per_epoch
        log_end(log, learner.step)
    if snapshot:
        # A resumed run may save no checkpoint, and its last validation may have found a better step
        checkpoint.remove_outdated(folder, learner.step, keep=[learner.patience.best_step])
    if job.config["figures"] == "always":
        run.afterwards.draw("curves.png", loss_figure(folder / METRICS), tag="curves", step=learner.step)
    _record_scores(folder, experiment, result)
    result.status = Status.PRUNED if learner.patience.pruned else status


def _train_until_end(folder: Path, experiment: Experiment, log: Log) -> Status:
    """Train, and return the status; a signal ends it after the step, with a checkpoint of that step."""
    parts = experiment.recipe, experiment.learner, experiment.batches, experiment.validation
    try:
        with deferred(experiment.world) as stop:
            return train(*parts, log, _make_commit(folder, experiment, log), stop)
    except Diverged as error:
        raise explained(error, folder, experiment) from error


def _open_run_logs(folder: Path, experiment: Experiment, snapshot: Snapshot | None) -> Log:
    """Open the logs of a run, cut back to its snapshot."""
    positions, state = (snapshot.logs, snapshot.state.get("log", {})) if snapshot else (None, None)
    screens = [make_console(experiment)]
    return open_logs(folder, positions=positions, state=state, step=experiment.learner.step, screens=screens)


def _make_commit(folder: Path, experiment: Experiment, log: Log) -> Callable[[], None]:
    """Return a function that saves a checkpoint; the best step's checkpoint is never removed."""
    learner, data, cadence = experiment.learner, experiment.fingerprint.to_record(), experiment.recipe.cadence

    def commit() -> None:
        positions = log.positions()
        checkpoint.save(
            folder,
            learner.step,
            learner.weights(),
            {"learner": learner.state_dict(), "log": log.state_dict()},
            logs=positions,
            meta={
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                numerics.META: numerics.current(),
                DATA: data,
            },
            keep=[learner.patience.best_step],
            best=cadence.held.of(learner.patience.best_step),
        )

    return commit


def _record_scores(folder: Path, experiment: Experiment, result: Result) -> None:
    """Select the best checkpoint, read the test split once with it if the config says so, and fill in the result."""
    learner, settings = experiment.learner, experiment.settings
    selected = checkpoint.weights_file(folder, learner.patience.best_step)
    result.weights, result.schema, result.scores = str(selected.relative_to(folder)), SCHEMA, {}
    for split in experiment.validation:
        result.scores[split] = {
            "best": _scores_of_split(split, learner.patience.best),
            "last": _scores_of_split(split, learner.patience.last),
        }
    if settings.test == "end" and experiment.test is not None:
        learner.load_weights(checkpoint.read_weights(selected))
        result.test_reads += 1
        result.scores["test"] = evaluate(experiment.recipe, learner, experiment.test())


def _scores_of_split(split: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores of one split, with their step."""
    names = {**{f"{split}/{metric}": metric for metric in ("accuracy", "loss", "nll")}, "step": "step"}
    return {short: scores[name] for name, short in names.items() if name in scores}
