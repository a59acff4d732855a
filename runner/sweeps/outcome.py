"""How trials end: read their `result.json`, and write it for a trial that could not."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import plain_yaml, user_paths
from runner.engine.monitor import Monitor
from runner.engine.saving.evidence import best_score, monitor_of, proven
from runner.engine.saving.folder import RESULT, SCHEMA, Result, ResultLost, candidates, read_result, write_result
from runner.engine.saving.locking import lock
from runner.engine.saving.storage import make_folders, write_atomic
from runner.errors import (
    CheckpointError,
    ConfigError,
    Locked,
    StorageError,
)
from runner.numerics import BEFORE_SCHEMA_2, check_unchanged
from runner.status import BUG, Ending, Status
from runner.sweeps.last_step import last_step
from runner.sweeps.owning import by_holder, failed_alone
from runner.tasks.job import Job
from runner.tasks.saved_config import holds_same_run

CONFIG = "config.yaml"
LOG = "trial.log"
_SIGNALS = {
    signal.SIGKILL: "killed (SIGKILL), as by the system when memory runs out",
    signal.SIGSEGV: "crashed (SIGSEGV): a segmentation fault in native code",
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that ended, with a result or without."""

    number: int  # from `Launcher.submit`
    job: Job
    result: Result
    ran: bool  # False: it had a result already
    seconds: float = 0.0  # of this attempt

    @property
    def name(self) -> str:
        """Return the name of the trial's folder."""
        return self.job.folder_name

    @property
    def has_result(self) -> bool:
        """True if the trial has a result and need not run again."""
        return self.result.status.is_result

    @property
    def score(self) -> float:
        """Return the best monitored score, nan if there is none."""
        return best_score(self.result, self.job.config["monitor"])


def folder_of(job: Job) -> Path:
    """Return the folder of a trial."""
    return Path(job.folder or job.folder_name)


def read_saved_result(folder: Path) -> Result | None:
    """Return the result in a folder, None if there is none or it cannot be read."""
    try:
        return read_result(folder) if user_paths.is_file(folder / RESULT, error=CheckpointError) else None
    except CheckpointError:
        return None


def has_file(path: Path) -> bool:
    """Return True if a file is there; a trial whose folder cannot be looked at fails alone, when it writes."""
    try:
        return user_paths.is_file(path)
    except ConfigError:
        return False


def saved_result(job: Job) -> Result | None:
    """Return the result in the folder of a trial as far as its scores prove it, None if it cannot be read."""
    result = read_saved_result(folder_of(job))
    return result and proven(result, monitor_of(job.config))


def finished_result(job: Job) -> Result | None:
    """Return the result of a trial that need not run again, else None.

    Raises CheckpointError if its score cannot be compared with those of the trials to come.
    """
    folder, result = folder_of(job), saved_result(job)
    if not result or not result.status.is_result or not is_same_run(folder, job):
        return None
    _check_score(folder, result, job.config)
    return result


def check_scores(folders: Iterable[str | Path], config: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a run of a search has a score that cannot be compared with those of runs to come."""
    for folder in map(Path, folders):
        if (result := read_saved_result(folder)) is not None:
            _check_score(folder, result, config)


def _check_score(folder: Path, result: Result, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError if an older version measured the monitored loss in another way than this one."""
    if result.schema < SCHEMA and Monitor(config["monitor"]).metric == "loss":
        accept = config["resume_numerics"] == "new"
        check_unchanged(config, BEFORE_SCHEMA_2, folder, accept=accept, scores_only=True)


def is_same_run(folder: Path, job: Job) -> bool:
    """Return True if a folder holds the run of a job, on whatever data, and its config can be read."""
    try:
        return holds_same_run(folder, job)
    except ConfigError:
        return False


def with_own_folders(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs with folders that hold their run or none: `<name>-2`, ... if `<name>` holds another run.

    Names without a hash may be of another run, as may the folder of a trial whose `config.yaml` was edited.
    """
    jobs = list(jobs)
    taken = {folder_of(job) for job in jobs}
    found = []
    for job in jobs:
        folder = folder_of(job)
        free = (each for each in candidates(folder) if each == folder or each not in taken)
        own = next(each for each in free if not _holds_other_run(each, job))
        taken.add(own)
        found.append(moved(job, own))
    return found


def moved(job: Job, folder: Path) -> Job:
    """Return a job with another folder beside its own; the folders that `hydra.sweep.subdir` adds stay in its name."""
    if folder == folder_of(job):
        return job
    return replace(job, folder=str(folder), folder_name=str(Path(job.folder_name).with_name(folder.name)))


def _holds_other_run(folder: Path, job: Job) -> bool:
    """Return True if a folder holds a run, and not that of a job."""
    begun = any(has_file(folder / name) for name in (CONFIG, RESULT))
    return begun and not is_same_run(folder, job)


def begin(job: Job) -> Result | None:
    """Prepare the folder of a trial; return how it ended if that cannot be done, else None.

    The result of an earlier attempt is reset to `running`, so that a later result is of this attempt. Raises
    StorageError if the disk is full.
    """
    folder = folder_of(job)
    try:
        make_folders(folder)
        if read_saved_result(folder) is not None:
            # If another process holds the folder, the trial reports it
            with suppress(Locked), lock(folder):
                if (result := read_saved_result(folder)) is not None:
                    write_result(folder, replace(result, status=Status.RUNNING, exit=None, reason=None))
    except StorageError as error:
        return failed_alone(folder, error)
    return None


@by_holder
def finalize_result(job: Job, ended: Ending, seconds: float) -> Result:
    """Return the result of a trial, and write it if the trial left no final one.

    Whatever its process says, a training run has ended well only if its scores are there.
    """
    folder, monitor = folder_of(job), monitor_of(job.config)
    try:
        result = proven(read_result(folder), monitor)
    except ResultLost:
        result = Result()
    except CheckpointError as error:
        # Of a later version, or no file: not ours to replace
        return Result(status=Status.FAILED, exit=error.exit_code, reason=str(error))
    if result.status.is_result:
        return result
    if ended.status.finished and monitor:
        ended = lost_ending(describe_exit(ended.exit_code))
    result.status, result.exit, result.reason = ended.status, ended.exit_code, ended.reason
    result.seconds = result.seconds or round(seconds, 3)
    steps, epochs = last_step(folder, LOG)
    if steps > result.steps:
        result.steps, result.epochs = steps, epochs
    try:
        make_folders(folder)
        if not ended.status.is_result and not user_paths.exists(folder / CONFIG, error=StorageError, links=False):
            write_atomic(folder / CONFIG, plain_yaml.dump(job.config))
        write_result(folder, result)
    except StorageError as error:
        return failed_alone(folder, error)
    return result


def lost_ending(reason: str, code: int = BUG) -> Ending:
    """Return the ending of a trial whose process left no result."""
    return Ending(Status.FAILED, code, reason)


def describe_exit(code: int) -> str:
    """Return in words how a process ended that left no result; a negative code is minus a signal's number."""
    if code >= 0:
        return f"the process ended with exit code {code} and left no result"
    try:
        number = signal.Signals(-code)
    except ValueError:
        # Most real-time signals have no name
        return f"killed (signal {-code})"
    return _SIGNALS.get(number, f"killed ({number.name})")
