"""The folder of a run: the one in which an earlier process began it, or a free one."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from runner import plain_yaml, user_paths
from runner.engine.fingerprint import Fingerprint
from runner.engine.saving.data_folders import data_of, folder_for_data
from runner.engine.saving.evidence import result_to_continue
from runner.engine.saving.folder import RESULT, candidates, create, read_result
from runner.engine.saving.held import LOCK
from runner.engine.saving.storage import TEMPORARY, printable
from runner.errors import CheckpointError, ConfigError, DataError, StorageError
from runner.numerics import same_config
from runner.status import Status
from runner.tasks.job import Job
from runner.tasks.report import print_progress
from runner.tasks.saved_config import holds_same_run
from runner.tasks.saved_data import saved_data

_CONFIG = "config.yaml"
_ENVIRONMENT = "environment.json"
# The source of the components that a notebook registered; for the reader, nothing imports it
MAIN_CODE = "main_components.py"
# Files that a folder may hold before its run has begun
_ALLOWED_BEFORE_RUN = {"trial.log", LOCK, RESULT, "overrides.yaml", _ENVIRONMENT, MAIN_CODE}


def interrupted_folder(job: Job, fingerprint: Fingerprint) -> Path | None:
    """Return the folder of a run that an earlier process started and did not finish, else None.

    That is the folder that the job names, or the newest of those under `outputs` that have its name.
    """
    if job.folder is not None:
        return Path(job.folder) if job.resumed else begun_folder(job)
    path = Path(job.config["outputs"]) / job.folder_name
    taken = list(itertools.takewhile(lambda each: _has_file(each / _CONFIG), candidates(path)))
    if not taken:
        return None
    if not same_config(plain_yaml.load(taken[-1] / _CONFIG), job.config):
        return None
    if data_of(taken[-1]) not in (None, fingerprint.id) and job.config["resume_data"] != "new":
        return None
    return None if _is_done(taken[-1]) else taken[-1]


def _is_done(folder: Path) -> bool:
    """Return True if a folder has the result of a run that ended well."""
    try:
        return read_result(folder).status is Status.DONE
    except CheckpointError:
        return False


def make_run_folder(job: Job) -> Path:
    """Create the folder that the job names, else a free one under `outputs`."""
    if job.folder is None:
        return create(Path(job.config["outputs"]) / job.folder_name)
    path = Path(job.folder)
    if job.is_trial:
        return _trial_folder(path)
    free = user_paths.is_dir(path, error=StorageError) and all(
        map(_is_allowed_before_run, user_paths.listed(path, error=StorageError))
    )
    return path if free else create(path)


def _trial_folder(path: Path) -> Path:
    """Return exactly the folder of a trial: its sweep reads the result there. Raises an error if it cannot be used."""
    if not user_paths.is_dir(path, error=StorageError):
        try:
            made = create(path, only=True)
        except FileExistsError as error:
            raise StorageError(f"{printable(path)}: is not a folder") from error
        return made
    if user_paths.exists(path / _CONFIG, error=StorageError, links=False):
        raise ConfigError(f"{printable(path)}: holds another run; move it away")
    return path


def _is_allowed_before_run(name: str) -> bool:
    """Return True if a folder may hold this file before its run has written its config."""
    return name in _ALLOWED_BEFORE_RUN or TEMPORARY.fullmatch(name) is not None


def _has_file(path: Path) -> bool:
    """Return True if a file is there; raises StorageError if the system does not say."""
    return user_paths.is_file(path, error=StorageError)


def begun_folder(job: Job) -> Path | None:
    """Return the folder that the job names if it already holds the same run, on whatever data, else None."""
    folder = Path(job.folder) if job.folder else None
    if folder is None or not any(user_paths.exists(folder / n, error=StorageError) for n in (_CONFIG, RESULT)):
        return None
    if not _has_file(folder / _CONFIG) and not job.is_trial:
        return None
    return folder if holds_same_run(folder, job) else None


def on_these_data(job: Job, fingerprint: Fingerprint) -> Job:
    """Return a job whose folder holds no run on other data: where its own does, it gets another one, with a line.

    With `resume_data=new` an unfinished run goes on with the other data.
    """
    folder = begun_folder(job)
    if folder is None or job.resumed:
        return job
    own = folder_for_data(folder, fingerprint.id)
    unfinished = not _has_result(folder)
    if own == folder or (unfinished and job.config["resume_data"] == "new"):
        return job
    if not job.notes:
        raise DataError(f"{folder}: the data have changed since the sweep began; repeat the command")
    changes = saved_data(folder, result_to_continue(folder, repair=False)[0]).changes(fingerprint)
    print_progress(f"{folder} holds this run on other data ({changes}); this one goes to {own}")
    return replace(job, folder=str(own), folder_name=own.name)


def _has_result(folder: Path) -> bool:
    """Return True if a folder has the result of a run that ended."""
    try:
        return read_result(folder).status.is_result
    except CheckpointError:
        return False
