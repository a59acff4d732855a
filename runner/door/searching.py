"""A search run: over our launcher as runs end, over Hydra's others in batches; then the table and the best."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.door.compose import quoted
from runner.door.search import Planned
from runner.errors import TrialsFailed
from runner.search.ranking import show, write
from runner.search.study import Study
from runner.status import Status
from runner.sweeps.benches import BatchBench
from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import Ended, finished, folder_of, lost, saved, settle
from runner.sweeps.run import told_to_stop
from runner.sweeps.screen import screen
from runner.sweeps.searching import Searching, search_here
from runner.tasks.job import Job

CHANNEL = "RUNNER_SEARCH"  # variable that tells a run of Hydra's launchers what it reports to
_planned: ContextVar[tuple[Planned, Path]] = ContextVar("planned")  # Hydra makes its sweeper from a config only


def run_search(planned: Planned, folder: Path, knobs: Knobs) -> int:
    """Search over our launcher; returns the exit code, raises TrialsFailed if points failed."""
    study = Study(planned.search, folder)
    searching = Searching(planned.search, study, planned.jobs(study))
    most = planned.search.most
    count = 0 if most == float("inf") else int(most) * len(planned.search.seeds)
    stopped = search_here(searching, knobs, screen(count), warmed(planned), planned.search.n_jobs)
    return conclude(planned, folder, study, searching, stopped)


def warmed(planned: Planned) -> Job:
    """Return a job like those of the search, for processes to get ready by: with Optuna, where runs are pruned."""
    like = planned.like
    more = ["optuna"] if planned.search.prunes else []
    return replace(like, config={**like.config, "plugins": [*like.config["plugins"], *more]})


@contextmanager
def handed_over(planned: Planned, folder: Path) -> Iterator[None]:
    """Let Hydra's sweeper have a search that is planned."""
    token = _planned.set((planned, folder))
    try:
        yield
    finally:
        _planned.reset(token)


def search_in_batches(launcher: Any) -> None:
    """Search over a launcher of Hydra's: as many runs as `hydra.sweeper.n_jobs` begin together and are waited for."""
    planned, folder = _planned.get()
    study = Study(planned.search, folder)
    searching = Searching(planned.search, study, planned.jobs(study))
    begun = 0

    def launch(jobs: Sequence[Job]) -> list[Ended]:
        nonlocal begun
        asked = [job for job in jobs if finished(job) is None]
        if asked:
            launcher.launch([words(job) for job in asked], initial_job_idx=begun)
        begun += len(asked)
        return [ended(job, ran=job in asked) for job in jobs]

    bench = BatchBench(launch, planned.search.n_jobs or 1)
    with told_to_stop() as told:
        searching.run(bench, told)
    if code := conclude(planned, folder, study, searching, 128 + told[0] if told else 0):
        raise SystemExit(code)


def words(job: Job) -> list[str]:
    """Return the overrides by which Hydra makes a run."""
    found = [f"++{word}" if "." in word.partition("=")[0] else word for word in job.overrides]
    found.append(f"hydra.sweep.subdir={quoted(job.folder_name)}")
    if job.search:
        found.append(f"++hydra.job.env_set.{CHANNEL}={quoted(json.dumps(job.search))}")
    return found


def ended(job: Job, *, ran: bool) -> Ended:
    """Return how a run of another launcher ended, by what it left."""
    result = saved(folder_of(job))
    if result is None or result.status is Status.RUNNING:
        result = settle(job, lost("its process ended and left no result"), 0.0)
    return Ended(number=0, job=job, result=result, ran=ran)


def conclude(planned: Planned, folder: Path, study: Study, searching: Searching, stopped: int) -> int:
    """Write and show what came of a search; return its exit code."""
    rows = study.rows()
    monitor = planned.like.config["monitor"]
    write(folder, rows, planned.search, monitor)
    show(folder, rows, planned.search, monitor)
    if stopped:
        over = sum(row.state != "running" for row in rows)
        sys.stderr.write(f"stopped: {over} points are told; the same command goes on\n")
        return stopped
    failed = [row for row in rows if row.state == "fail"]
    if searching.hopeless:
        raise TrialsFailed(
            f"given up: {searching.failed} of {searching.points} points failed (hydra.sweeper.max_failure_rate)"
        )
    if failed:
        raise TrialsFailed(f"{len(failed)} of {len(rows)} points failed; the same command tries them again")
    return 0
