"""Run a planned sweep: choose its launcher, follow its trials and show the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.directions import monitor_in
from runner.door.choose_launcher import make_launcher
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.door.plan import Plan
from runner.door.resume_sweep import save_command
from runner.door.sweep_end import show_points, show_trials
from runner.engine.saving import storage
from runner.engine.saving.disk import fills_disk
from runner.engine.saving.folder import Result
from runner.engine.saving.locking import lock
from runner.errors import StorageError, TrialsFailed
from runner.printing import counted, write_stderr, write_stdout
from runner.status import Status
from runner.sweeps.data_check import DataCheck
from runner.sweeps.disk_use import check_space, results_in
from runner.sweeps.display import make_display
from runner.sweeps.failures import raise_if_failed, trials_ended
from runner.sweeps.launcher import Launcher, run_all
from runner.sweeps.outcome import Ended, check_scores, folder_of, read_saved_result
from runner.sweeps.places import Places
from runner.sweeps.stop_rules import Stopper
from runner.sweeps.swept import swept_keys
from runner.tasks.job import Job

if TYPE_CHECKING:
    from runner.door.plan_search import PlannedSearch
    from runner.search.space import Point
    from runner.search.study import Study


# The trials of a sweep: the folder and the result of each
_Outcome = list[tuple[Path, Result]]


def run_sweep(conf: Conf, plan: Plan, given: Sequence[ParsedOverride], outcome: _Outcome | None = None) -> int:
    """Run a sweep and return its exit code; raises TrialsFailed if runs failed, Locked if another process runs it.

    `outcome` gets the folder and the result of each trial, also where an error ends the sweep.
    """
    outcome = [] if outcome is None else outcome
    write_stdout(f"{_size(plan)} in {storage.printable(plan.folder)}\n")
    for note in plan.notes:
        write_stdout(f"{note}\n")
    like = _example_job(plan.search) if plan.search else plan.jobs[0]
    with closing(make_launcher(conf, plan, given, like)) as launcher:
        # Before anything is written
        _check_space(plan, launcher)
        storage.make_folders(plan.folder)
        with lock(plan.folder):
            _save_command(conf, plan, given)
            try:
                if plan.search:
                    return _run_search(conf, plan, plan.search, launcher, outcome)
                return _run_grid(conf, plan, launcher, outcome)
            finally:
                # All trials together, because each one would write the whole notebook again.
                from runner.notebook.book import record

                record(plan.folder, plan.outputs)


def _check_space(plan: Plan, launcher: Launcher) -> None:
    """Say what the trials to come will take on the disk; raises StorageError if that much is not free."""
    if plan.search is None:
        check_space(plan.jobs, launcher, plan.folder, write_stdout)
        return
    search = plan.search.search
    trials = search.most_points * len(search.seeds) - results_in(plan.folder)
    check_space(plan.search.examples(), launcher, plan.folder, write_stdout, trials)


def _save_command(conf: Conf, plan: Plan, given: Sequence[ParsedOverride]) -> None:
    """Save the command of a sweep; where that is all that cannot be written, the trials still run."""
    try:
        save_command(plan.folder, conf, given)
    except StorageError as error:
        if fills_disk(error, plan.folder):
            raise
        write_stderr(f"runner: warning: {error}; resume= does not know this sweep, the same command does\n")


def _size(plan: Plan) -> str:
    """Return the number of trials in words."""
    if plan.search is None:
        return counted(len(plan.jobs), "trial")
    search = plan.search.search
    points = search.most_points
    return "search" if points == math.inf else f"search of {counted(int(points) * len(search.seeds), 'trial')}"


def _run_grid(conf: Conf, plan: Plan, launcher: Launcher, outcome: _Outcome) -> int:
    """Run all combinations, and show how they ended."""
    jobs, ended = plan.jobs, list[Ended]()
    swept = swept_keys(jobs)
    signal, stopper = 0, Stopper(plan.stop, monitor_in(jobs[0].config)) if plan.stop.any else None
    try:
        _, signal = run_all(jobs, launcher, make_display(len(jobs), swept=swept), ended, stopper)
    finally:
        ended.sort(key=lambda each: each.number)
        outcome += [(folder_of(each.job), each.result) for each in ended]
        show_trials(conf, plan, ended, swept, stopped=bool(signal), rule=_rule(stopper))
        launcher.finish()
    if signal:
        complete = sum(each.has_result for each in ended)
        verb = "has" if complete == 1 else "have"
        write_stderr(
            f"stopped: {complete} of {counted(len(jobs), 'trial')} {verb} a result; repeat the command to continue\n"
        )
        return 128 + signal
    if stopper and len(ended) < len(jobs) and (reason := stopper.reason()):
        left = counted(len(jobs) - len(ended), "trial")
        _say_stopped(stopper, reason, f"{left} not run")
    raise_if_failed(ended, len(jobs) if stopper is None else len(ended), "trials")
    if stopper and stopper.reason():
        return 0
    if len(ended) < len(jobs):
        missing = len(jobs) - len(ended)
        raise TrialsFailed(f"{missing} of {counted(len(jobs), 'trial')} {'was' if missing == 1 else 'were'} not run")
    return 0


def _rule(stopper: Stopper | None) -> str | None:
    return None if stopper is None else stopper.reason()


def _say_stopped(stopper: Stopper, reason: str, left: str) -> None:
    """Print which rule ended a sweep; raises TrialsFailed where it is the one on failures."""
    if stopper.stops_on_failures:
        raise TrialsFailed(f"stopped by {reason}; {left}")
    write_stdout(f"stopped by {reason}; {left}; the same command with another limit continues\n")


def _stopper_of(plan: Plan, planned: PlannedSearch, study: Study) -> Stopper | None:
    """Return the stop rules of a search, which know the points that have ended; None without rules."""
    if not plan.stop.any:
        return None
    stopper = Stopper(plan.stop, planned.search.monitor)
    for row in sorted(study.rows(), key=lambda row: row.number):
        if row.state in ("complete", "pruned", "diverged"):
            for _ in row.folders:
                stopper.training_ended()
            stopper.trial_ended(math.nan if row.value is None else row.value, failed=False)
    return stopper


def _run_search(conf: Conf, plan: Plan, planned: PlannedSearch, launcher: Launcher, outcome: _Outcome) -> int:
    """Run the points that a sampler picks, and show the ranking."""
    places = Places()
    with closing(_open_study(plan, planned, places.data)) as study:
        try:
            return _search(conf, plan, planned, launcher, study, places)
        finally:
            folders = [plan.folder / name for row in study.rows() for name in row.folders]
            lost = Result(status=Status.FAILED, reason="its folder holds no result")
            outcome += [(each, read_saved_result(each) or lost) for each in folders]


def _search(conf: Conf, plan: Plan, planned: PlannedSearch, launcher: Launcher, study: Study, places: Places) -> int:
    """Run the points of a study, and show the ranking."""
    from runner.sweeps.search_loop import SearchLoop

    check_scores((plan.folder / name for row in study.rows() for name in row.folders), planned.like.config)
    _renew(plan, planned, study, places)
    stopper = _stopper_of(plan, planned, study)
    loop = SearchLoop(planned.search, study, planned.jobs(study), places, stopper)
    # Points of earlier commands are not run again
    display = make_display(study.to_come * len(planned.search.seeds), swept=_searched_keys(planned))
    try:
        with closing(launcher), closing(display), study.alive():
            signal = loop.run(launcher, display)
    finally:
        failed = show_points(conf, plan, planned, study, _rule(stopper))
        launcher.finish()
    if signal:
        write_stderr("stopped; repeat the command to continue\n")
        return 128 + signal
    if stopper and (reason := stopper.reason()):
        _say_stopped(stopper, reason, f"{counted(len(study.rows()), 'point')} tried")
    if loop.too_many_failed:
        raise TrialsFailed(
            f"search stopped: {loop.failed} of {counted(loop.points, 'point')} failed (hydra.sweeper.max_failure_rate)"
        )
    if failed:
        raise TrialsFailed(f"{failed} points failed; repeat the command to try them again")
    if loop.interrupted:
        what = f"{len(loop.interrupted)} run" + ("s were" if len(loop.interrupted) > 1 else " was")
        raise trials_ended(f"{what} interrupted", loop.interrupted)
    if not any(row.state in ("complete", "pruned", "diverged") for row in study.rows()):
        raise TrialsFailed("no point has a result")
    return 0


def _searched_keys(planned: PlannedSearch) -> list[str]:
    """Return the keys that a search varies."""
    keys = dict.fromkeys(axis.key for axis in planned.search.space.axes)
    return [*keys, *(["seed"] if len(planned.search.seeds) > 1 else [])]


def _renew(plan: Plan, planned: PlannedSearch, study: Study, places: Places) -> None:
    """Try points again whose runs have no result, or one of other code where that is asked; say what else is used."""
    config = planned.like.config
    if again := study.renew(lambda names: not all(places.is_current(plan.folder / name, config) for name in names)):
        what = "1 point has a run" if again == 1 else f"{again} points have runs"
        why = "without a result" if config["rerun"] == "never" else "without a result, or with one of other code,"
        write_stderr(f"{what} {why} in its folder, whatever the study says: tried again\n")
    if config["rerun"] == "never":
        places.tell_used(plan.folder / name for row in study.rows() for name in row.folders)


def _open_study(plan: Plan, planned: PlannedSearch, check: DataCheck) -> Study:
    """Return the study of a search: another one where the points of the first were tried on other data."""
    from runner.search.study import Study

    def is_other(point: Point, data: Sequence[str | None]) -> bool:
        """Return True if the runs of a point read other data than they would now."""
        known = {each for each in data if each}
        return bool(known) and known != {check.fingerprint(planned.run(point, planned.search.seeds[0]).config)}

    search, number = planned.search, 1
    while True:
        study = Study(search, plan.folder)
        if not (others := sum(is_other(*each) for each in study.finished())):
            return study
        study.close()
        suffix = f"-data{check.fingerprint(planned.like.config)[:4]}" + (f"-{number}" if number > 1 else "")
        search = replace(planned.search, study_name=f"{planned.search.study_name}{suffix}")
        tried = f"{counted(others, 'point')} {'was' if others == 1 else 'were'} tried on other data"
        write_stderr(f"{tried}: the search goes on as study {search.study_name}\n")
        number += 1


def _example_job(planned: PlannedSearch) -> Job:
    """Return a job like those of the search, so that processes can prepare: with Optuna, if runs are pruned."""
    like = planned.like
    more = ["optuna"] if planned.search.prunes else []
    return replace(like, config={**like.config, "plugins": [*like.config["plugins"], *more]})
