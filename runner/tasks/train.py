"""task=train: train, validate, select the best checkpoint, read the test split once with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from runner.assemble import Experiment, assemble, threads
from runner.assemble.invariants import blamed, invariants_of
from runner.assemble.load_data import Loaded, load
from runner.comparing.runs import read_overrides
from runner.decoration import decorative
from runner.directions import monitor_by_tag
from runner.engine.figures.curves import loss_figure
from runner.engine.interruption import deferred
from runner.engine.invariants.violation import Violation
from runner.engine.logs.log import Log, open_logs
from runner.engine.logs.sinks import METRICS
from runner.engine.saving import checkpoint
from runner.engine.saving.evidence import proven
from runner.engine.saving.keep import keep_only
from runner.engine.saving.rotation import clean
from runner.engine.train import train
from runner.errors import DataError, Diverged
from runner.registry import register
from runner.status import Status
from runner.tasks.batch_size import with_batch_size
from runner.tasks.diagnose_run import diagnose_if_missing, plan_diagnosis
from runner.tasks.extend_run import extended_job, origin_of
from runner.tasks.final_scores import record_scores
from runner.tasks.find_folder import begun_folder, on_these_data
from runner.tasks.job import Job, Vary
from runner.tasks.make_commit import make_commit
from runner.tasks.probe_phase import compare_with_probe
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
from runner.tasks.run_start import Start, data_of_run, numerics_of
from runner.tasks.saved_config import MAY_CHANGE, saved_config
from runner.tasks.settings_check import check_settings
from runner.tasks.track_run import build_trackers, tracked
from runner.trackers.command_line import check_online
from runner.trackers.contract import Tracker
from runner.unused_settings import recipe_in

_DIVERGES_AGAIN = (
    "it diverged and will diverge again at the same step, unless device, memory_format, compile or cuda_graphs differ"
)
_NOT_REMOVED = "superfluous checkpoints: not removed"


@register("task", name="train")
def train_task(job: Job, vary: Vary | None) -> int:
    """Train a model and leave its run folder; `resume=<folder>` continues a run, as does the same trial of a sweep."""
    by_hand = job.config["resume"] is not None
    job, folder, loaded = _resumed(job) if by_hand else _begun(extended_job(job))
    with ExitStack() as held:
        resumed = held.enter_context(resumable_run(folder, job, by_hand=by_hand)) if folder else None
        snapshot = checkpoint.load(folder) if folder else None
        origin = origin_of(job.config) if snapshot is None else None
        before = origin.snapshot if origin else snapshot
        versions = numerics_of(origin.folder if origin else folder, job.config, before)
        if before:
            job = replace(job, config=threads.with_saved(job.config, job.overrides, before.meta))
        loaded, lines = data_of_run(resumed, job, snapshot, loaded or load(job.config), origin)
        job, loaded, found = with_batch_size(job, loaded, folder)
        experiment = assemble(job.config, fit=before is None, search=job.search, world=job.world, loaded=loaded)
        job.world.check_alike(_identity(experiment), "the data and weights of the processes")
        lines += found + check_settings(job, experiment, saved=by_hand or before is not None)
        lines += origin.start(experiment.learner, experiment.recipe, job.config) if origin else []
        missing = _check_test_split(job, experiment)
        changed = threads.changed(before.meta) if before else ()
        trackers = build_trackers(job)
        experiment = replace(experiment, summary=[*lines, *experiment.summary, *missing, *changed])
        if resumed and snapshot:
            snapshot = restore(resumed.folder, experiment.learner, snapshot, job.config)
        is_finished = resumed is not None and proven(resumed.result, job.config["monitor"]).status.finished
        start = Start(snapshot, origin, versions)
        if resumed and is_finished:
            run = _already_trained(resumed, job, trackers)
            diagnose_if_missing(run, job, vary)
        else:
            run = _train_from(job, experiment, resumed, start, trackers, vary)
    if job.world.is_main:
        show_summary(run.folder, job, run.result, run.lines, run.findings)
    return 0


def _identity(experiment: Experiment) -> dict[str, int | str]:
    """Return what must be the same in all processes of a run before its first step."""
    return {"data set": experiment.fingerprint.id}


def _resumed(job: Job) -> tuple[Job, Path, None]:
    """Return the job and the folder of the run that `resume=<folder>` names."""
    folder = str(job.config["resume"])
    config = saved_config(folder, job, key="resume", may_change=(*MAY_CHANGE, "tracker"))
    check_online(config, [word.lstrip("+").partition("=")[0] for word in job.overrides])
    return replace(job, config=config, recipe=recipe_in(read_overrides(Path(folder)))), Path(folder), None


def _begun(job: Job) -> tuple[Job, Path | None, Loaded | None]:
    """Return the job, the folder that already holds this run on these data, and the data if they had to be read."""
    if begun_folder(job) is None:
        return job, None, None
    loaded = load(job.config)
    job = on_these_data(job, loaded.fingerprint)
    return job, begun_folder(job), loaded


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


def _already_trained(run: Run, job: Job, trackers: Mapping[str, Tracker]) -> Run:
    """Return a run that has nothing left to train, after its trackers have all rows and its last removal is done."""
    writes = run.read_only is None and job.world.is_main
    if writes:
        # A disk may have failed after the result. Before the trackers: they write files of their own meanwhile
        with decorative(_NOT_REMOVED):
            clean(run.folder)
    with tracked(run, job, trackers if run.read_only is None else {}):
        if writes:
            # A kill may have come between the result and this
            with decorative(_NOT_REMOVED):
                _keep(run.folder, job.config["keep"], run.result.weights, run.result.snapshots or ())
        return run


def _train_from(
    job: Job,
    experiment: Experiment,
    resumed: Run | None,
    start: Start,
    trackers: Mapping[str, Tracker],
    vary: Vary | None,
) -> Run:
    """Train from the snapshot or from the start, and return the run with its result."""
    diverged = resumed is not None and resumed.result.status is Status.DIVERGED
    with run_folder(job, experiment, resumed=resumed) as run:
        if start.versions:
            run.result.numerics = sorted({*(run.result.numerics or ()), *start.versions})
        show_start(experiment, start.snapshot, resumed=resumed is not None and start.origin is None)
        if diverged:
            print_progress(f"  {_DIVERGES_AGAIN}")
        plan_diagnosis(run, job, vary)
        _train_in(run, job, experiment, start, trackers)
    return run


def _train_in(run: Run, job: Job, experiment: Experiment, start: Start, trackers: Mapping[str, Tracker]) -> None:
    """Train in a run folder: checkpoints, logs, scores and the result."""
    learner, folder, result, snapshot = experiment.learner, run.folder, run.result, start.snapshot
    if experiment.world.is_main:
        clean(folder)
    with closing(_open_run_logs(folder, experiment, start)) as log:
        run.until_end.enter_context(tracked(run, job, trackers))
        if not snapshot:
            log_start(log, job, experiment.fingerprint)
        if start.origin:
            # After this checkpoint the run needs its own folder only
            with start.origin.lend_best(experiment.recipe.cadence.held):
                make_commit(folder, experiment, log)()
        try:
            status = _train_until_end(folder, job, experiment, log, resumed=snapshot is not None)
        except Exception:
            log_session_end(log, job, learner.step, succeeded=False)
            raise
        finally:
            result.steps, result.epochs = learner.step, learner.step / experiment.recipe.steps_per_epoch
        log_end(log, job, learner.step)
    # A resumed run may save no checkpoint, and its last validation may have found a better step
    if experiment.world.is_main:
        checkpoint.remove_outdated(folder, learner.step, keep=learner.kept_steps)
    if job.config["figures"] == "always":
        run.afterwards.draw("curves.png", loss_figure(folder / METRICS), tag="curves", step=learner.step)
    record_scores(run, job, experiment)
    compare_with_probe(run, experiment)
    selected, snapshots, keep = result.weights, result.snapshots or (), job.config["keep"]
    if keep == "none":
        result.weights = result.snapshots = None
    # Later than the result: without it the run would resume
    run.afterwards.add(_NOT_REMOVED, lambda at: _keep(at, keep, selected, snapshots))
    result.status = Status.PRUNED if learner.patience.pruned else status


def _keep(folder: Path, keep: str, selected: str | None, snapshots: Sequence[str]) -> None:
    """Remove the checkpoints that a finished run need not leave."""
    keep_only(folder, None if keep == "none" else selected, snapshots=snapshots, last=keep == "best+last")


def _train_until_end(folder: Path, job: Job, experiment: Experiment, log: Log, *, resumed: bool) -> Status:
    """Train, and return the status; a signal ends it after the step, with a checkpoint of that step."""
    parts = experiment.features.parts(experiment.recipe, experiment.learner, experiment.batches, experiment.validation)
    invariants, commit = invariants_of(job.config, experiment, resumed=resumed), make_commit(folder, experiment, log)
    try:
        recipe, commit = invariants.around(*parts[:2], log, commit, folder)
        with deferred(experiment.world) as stop:
            return train(recipe, *parts[1:], log, commit, stop)
    except Violation as error:
        raise blamed(error, job.config) from error
    except Diverged as error:
        raise explained(error, folder, experiment) from error


def _open_run_logs(folder: Path, experiment: Experiment, start: Start) -> Log:
    """Open the logs of a run, cut back to its snapshot; a run that extends another one has logs of its own."""
    if not experiment.world.is_main:
        return Log()
    positions = start.snapshot.logs if start.snapshot else None
    console, settings = make_console(experiment), experiment.settings
    tags = dict.fromkeys([*(f"val/{name}" for name in experiment.recipe.metrics.by_name), settings.monitor])
    return open_logs(
        folder,
        positions=positions,
        state=start.log_state,
        step=experiment.learner.step,
        screens=[console],
        ticks=console.ticks,
        scores=[monitor_by_tag(tag, settings.plugins) for tag in tags],
    )
