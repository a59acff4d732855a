"""Only the process that holds the lock of a trial's folder writes there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from runner.engine.saving.disk import fills_disk
from runner.engine.saving.folder import Result, read_result
from runner.engine.saving.locking import FolderLock, lock
from runner.engine.saving.storage import make_folders
from runner.errors import CheckpointError, Locked, StorageError
from runner.status import Ending, Status
from runner.tasks.job import Job

# (job, how it ended, seconds) -> the result in its folder
_Finalize = Callable[[Job, Ending, float], Result]


def own_folder(job: Job) -> FolderLock:
    """Create and lock the folder of a trial; raises Locked if another process works there."""
    folder = Path(job.folder or job.folder_name)
    make_folders(folder)
    return lock(folder)


def locked_ending(error: Locked) -> Ending:
    """Return how a trial ends whose folder another process holds."""
    return Ending(Status.FAILED, error.exit_code, str(error))


def result_of(ended: Ending) -> Result:
    """Return a result that is not written: the folder belongs to another process."""
    return Result(status=ended.status, exit=ended.exit_code, reason=ended.reason)


def failed_alone(folder: Path, error: StorageError) -> Result:
    """Return the result of a trial whose folder cannot be written; raises the error if it concerns all trials."""
    if fills_disk(error, folder.parent):
        raise error
    return Result(status=Status.FAILED, exit=error.exit_code, reason=str(error))


def by_holder(finalize: _Finalize) -> _Finalize:
    """Let a function write the result of a trial only with the lock of its folder; else return the result unwritten."""

    @functools.wraps(finalize)
    def finalize_locked(job: Job, ended: Ending, seconds: float) -> Result:
        try:
            with own_folder(job):
                return finalize(job, ended, seconds)
        except Locked as error:
            return result_of(locked_ending(error) if ended.status is Status.FAILED else ended)
        except StorageError as error:
            folder = Path(job.folder or job.folder_name)
            # A final result needs no write
            return _final_result(folder) or failed_alone(folder, error)

    return finalize_locked


def _final_result(folder: Path) -> Result | None:
    """Return the result in a folder if no run will change it."""
    try:
        result = read_result(folder)
    except CheckpointError:
        return None
    return result if result.status.is_result else None
