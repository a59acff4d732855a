"""The folder of a run: create or resume it, lock it, describe the run, and write its result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.assemble import Experiment
from runner.engine.saving.evidence import result_to_continue
from runner.engine.saving.folder import RESULT, Result, read_result, write_result
from runner.engine.saving.locking import lock
from runner.engine.saving.storage import is_read_only
from runner.engine.world import ALONE, World
from runner.errors import ConfigError, Locked, StorageError
from runner.notebook.book import record
from runner.status import SUCCESS, Ending, Status, ending
from runner.tasks.afterwards import Afterwards
from runner.tasks.describe_run import describe, record_origin, write_environment
from runner.tasks.find_folder import interrupted_folder, make_run_folder, on_these_data
from runner.tasks.job import Job
from runner.tasks.next_steps import command_line
from runner.tasks.plugins import known_cause
from runner.tasks.report import device_name, print_progress
from runner.tasks.saved_data import check_resumed, record_paths, saved_data

_CONFIG = "config.yaml"
_ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class Run:
    """A run folder that this process has locked, and its result."""

    folder: Path
    result: Result
    read_only: StorageError | None = None  # why it cannot be locked: it may be read, and nobody may write into it
    afterwards: Afterwards = field(default_factory=Afterwards)  # done after a success, with the folder still locked
    lines: list[str] = field(default_factory=list)  # for the summary that the task prints at its end
    findings: list[str] = field(default_factory=list)  # of the doctor, printed below the summary
    until_end: ExitStack = field(default_factory=ExitStack)  # closed after the result is written, however the run ended

    def check_writable(self) -> None:
        """Raise StorageError if the folder is read-only."""
        if self.read_only is not None:
            raise self.read_only


@contextmanager
def run_folder(job: Job, experiment: Experiment, *, resumed: Run | None = None) -> Iterator[Run]:
    """Lock the folder of a run while the body runs, and write a result that says how it ended.

    Creates and locks a new folder, unless one is `resumed`, and prints its path. Writes config, environment and
    `result.json` into it, with the status `running`, at the end `done`, the status that the body set, or that of the
    exception. A training run is then recorded in the notebook, however it ended. What the task has planned for
    `afterwards` comes last.
    """
    with ExitStack() as held:
        run = resumed or held.enter_context(_new_run(job))
        run.check_writable()
        print_progress(f"run {run.folder} on {device_name(experiment)}")
        held.enter_context(run.until_end)
        # Not if the result could not be written
        held.push(lambda kind, *_: _decorate(run, job.world) if kind is None else None)
        if job.notes and job.world.is_main:
            held.callback(record, run.folder, Path(job.config["outputs"]))
        if not run.result.data or run.result.data[-1] != experiment.fingerprint.id:
            run.result.data = [*(run.result.data or ()), experiment.fingerprint.id]
        held.enter_context(_keeping_result(run, job.config, writes=job.world.is_main))
        if not job.world.is_main:
            pass
        elif not user_paths.exists(run.folder / _CONFIG, error=StorageError):
            describe(run.folder, job, experiment)
        else:
            if not user_paths.exists(run.folder / _ENVIRONMENT, error=StorageError):
                write_environment(run.folder, job, experiment)
            record_paths(run.folder, job.config)
            record_origin(run.folder, job.config["plugins"])
        yield run


@contextmanager
def run_folder_if_writable(job: Job, experiment: Experiment) -> Iterator[Run | None]:
    """Lock a new run folder like `run_folder`; yield None, after a line, if `outputs` is read-only."""
    with ExitStack() as held:
        run = None
        try:
            run = held.enter_context(run_folder(job, experiment))
        except StorageError as error:
            if job.folder is not None or not is_read_only(error):
                raise
            print_progress(f"nothing is saved: {error}; choose another place with outputs=<folder>")
        yield run


@contextmanager
def existing_run(folder: Path, world: World = ALONE) -> Iterator[Run]:
    """Lock the folder of an earlier run; raises Locked, or CheckpointError if its result cannot be read.

    A folder that is read-only is not locked, since nobody writes into it.
    """
    with ExitStack() as held:
        read_only = _locked(folder, world, held)
        yield Run(folder, read_result(folder), read_only)


def count_test_reads(folders: Sequence[Path]) -> bool:
    """Count a read of the test split in the results of runs; print a line about each whose folder is read-only.

    Returns True if one was counted. Raises Locked, and counts none, if another process holds a folder.
    """
    counted = 0
    with ExitStack() as held:
        runs = [held.enter_context(existing_run(folder)) for folder in dict.fromkeys(folders)]
        for run in runs:
            try:
                run.check_writable()
                write_result(run.folder, replace(run.result, test_reads=run.result.test_reads + 1))
                counted += 1
            except StorageError as error:
                if not is_read_only(error):
                    raise
                print_progress(f"this read of the test split is not counted in {RESULT}: {error}")
    return counted > 0


def _locked(folder: Path, world: World, held: ExitStack) -> StorageError | None:
    """Lock a folder until the end of `held`; of one that is read-only, return the error instead."""
    try:
        held.enter_context(lock(folder, world))
    except StorageError as error:
        if not is_read_only(error):
            raise
        return error
    return None


@contextmanager
def resumable_run(folder: Path, job: Job, *, by_hand: bool) -> Iterator[Run]:
    """Lock the folder of a run that goes on; a lost result is rebuilt, with a line.

    What the user names with `resume=` (`by_hand`) is not replaced. Raises Locked, or CheckpointError if its result
    cannot be read.
    """
    with ExitStack() as held:
        read_only = _locked(folder, job.world, held)
        repair = not by_hand and read_only is None
        if line := job.world.from_main(lambda: result_to_continue(folder, repair=repair)[1]):
            print_progress(line)
        job.opened.append(folder)
        yield Run(folder, result_to_continue(folder, repair=False)[0], read_only)


@contextmanager
def continued_run_folder(job: Job, experiment: Experiment) -> Iterator[Run]:
    """Lock the folder in which an earlier process started the same run and did not finish it, else a new one."""
    with ExitStack() as held:
        job = on_these_data(job, experiment.fingerprint)
        folder = interrupted_folder(job, experiment.fingerprint)
        resumed = held.enter_context(resumable_run(folder, job, by_hand=job.resumed)) if folder else None
        if resumed:
            accept = job.config["resume_data"] == "new"
            saved = saved_data(resumed.folder, resumed.result)
            for line in check_resumed(saved, experiment.fingerprint, accept=accept):
                print_progress(f"  {line}")
        yield held.enter_context(run_folder(job, experiment, resumed=resumed))


@contextmanager
def _new_run(job: Job) -> Iterator[Run]:
    folder = _agreed_folder(job)
    job.world.remember(folder)
    with lock(folder, job.world):
        job.opened.append(folder)
        yield Run(folder, Result())


def _agreed_folder(job: Job) -> Path:
    """Return the folder of a new run, which the main process creates."""
    return Path(job.world.from_main(lambda: str(make_run_folder(job))))


@contextmanager
def _keeping_result(run: Run, config: Mapping[str, Any], *, writes: bool) -> Iterator[None]:
    """Keep `result.json` true: `running` while the body runs, then how it ended; only if this process `writes` it."""
    result = run.result
    began = time.monotonic() - result.seconds
    result.status, result.exit, result.reason = Status.RUNNING, None, None
    if writes:
        write_result(run.folder, result)
    try:
        yield
    except BaseException as error:
        cause = known_cause(error, config["plugins"], config)
        ended = ending(cause)
        if ended.status is Status.INTERRUPTED:
            print_progress(f"interrupted; resume with: {command_line(f'resume={run.folder}')}")
        # Report the first of two failures
        with suppress(StorageError, Locked):
            _write_end(run, ended, began, writes=writes)
        if cause is not error and issubclass(type(cause), ConfigError):
            # Later there is no word of the run's batch
            raise cause from error
        raise
    _write_end(run, SUCCESS if result.status is Status.RUNNING else Ending(result.status, 0), began, writes=writes)


def _decorate(run: Run, world: World) -> None:
    """Do what the task has planned for after its result, if it succeeded."""
    if run.result.exit == 0 and world.is_main:
        run.afterwards.run(run.folder)


def _write_end(run: Run, ended: Ending, began: float, *, writes: bool) -> None:
    """Write how a run ended, and the seconds that it took."""
    result = run.result
    result.status, result.exit, result.reason = ended.status, ended.exit_code, ended.reason
    result.seconds = round(time.monotonic() - began, 3)
    if writes:
        write_result(run.folder, result)
