"""The folder of a run: create or resume it, lock it, describe the run, and write its result."""

from __future__ import annotations

import itertools
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from runner import plain_yaml, user_paths
from runner.assemble import Experiment
from runner.engine.fingerprint import Fingerprint
from runner.engine.provenance import provenance
from runner.engine.saving.data_folders import data_of, folder_for_data
from runner.engine.saving.folder import RESULT, Result, candidates, create, read_result, write_result
from runner.engine.saving.held import LOCK
from runner.engine.saving.locking import lock
from runner.engine.saving.storage import TEMPORARY, is_read_only, write_atomic, write_unsynced
from runner.engine.world import ALONE, World
from runner.errors import DataError, Locked, StorageError
from runner.notebook.book import record
from runner.numerics import same_config
from runner.status import SUCCESS, Ending, Status, ending
from runner.tasks.job import Job
from runner.tasks.plugins import known_cause
from runner.tasks.report import device_name, print_progress
from runner.tasks.saved_config import holds_same_run
from runner.tasks.saved_data import check_resumed, data_entries, record_paths, saved_data

_CONFIG = "config.yaml"
# Files that a folder may hold before its run has begun
_ALLOWED_BEFORE_RUN = {"trial.log", LOCK, RESULT, "overrides.yaml", "environment.json"}


@dataclass(frozen=True)
class Run:
    """A run folder that this process has locked, and its result."""

    folder: Path
    result: Result
    read_only: StorageError | None = None  # why it cannot be locked: it may be read, and nobody may write into it

    def check_writable(self) -> None:
        """Raise StorageError if the folder is read-only."""
        if self.read_only is not None:
            raise self.read_only


@contextmanager
def run_folder(job: Job, experiment: Experiment, *, resumed: Run | None = None) -> Iterator[Run]:
    """Lock the folder of a run while the body runs, and write a result that says how it ended.

    Creates and locks a new folder, unless one is `resumed`, and prints its path. Writes config, environment and
    `result.json` into it, with the status `running`, at the end `done`, the status that the body set, or that of the
    exception. A training run is then recorded in the notebook, however it ended.
    """
    with ExitStack() as held:
        run = resumed or held.enter_context(_new_run(job))
        run.check_writable()
        print_progress(f"run {run.folder} on {device_name(experiment)}")
        if job.notes:
            held.callback(record, run.folder, Path(job.config["outputs"]))
        if not run.result.data or run.result.data[-1] != experiment.fingerprint.id:
            run.result.data = [*(run.result.data or ()), experiment.fingerprint.id]
        held.enter_context(_keeping_result(run, job.config["plugins"]))
        if not user_paths.exists(run.folder / _CONFIG, error=StorageError):
            _describe(run.folder, job, experiment)
        else:
            record_paths(run.folder, job.config)
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
        read_only = None
        try:
            held.enter_context(lock(folder, world))
        except StorageError as error:
            if not is_read_only(error):
                raise
            read_only = error
        yield Run(folder, read_result(folder), read_only)


@contextmanager
def continued_run_folder(job: Job, experiment: Experiment) -> Iterator[Run]:
    """Lock the folder in which an earlier process started the same run and did not finish it, else a new one."""
    with ExitStack() as held:
        job = on_these_data(job, experiment.fingerprint)
        folder = _interrupted_folder(job, experiment.fingerprint)
        resumed = held.enter_context(existing_run(folder)) if folder else None
        if resumed:
            accept = job.config["resume_data"] == "new"
            saved = saved_data(resumed.folder, resumed.result)
            for line in check_resumed(saved, experiment.fingerprint, accept=accept):
                print_progress(f"  {line}")
        yield held.enter_context(run_folder(job, experiment, resumed=resumed))


def _interrupted_folder(job: Job, fingerprint: Fingerprint) -> Path | None:
    """Return the folder of a run that an earlier process started and did not finish, else None.

    That is the folder that the job names, or the newest of those under `outputs` that have its name.
    """
    if job.folder is not None:
        return Path(job.folder) if job.resumed else begun_folder(job)
    path = Path(job.config["outputs"]) / job.folder_name
    taken = list(itertools.takewhile(lambda each: _has_file(each / RESULT), candidates(path)))
    if not taken or not _has_file(taken[-1] / _CONFIG):
        return None
    if not same_config(plain_yaml.load(taken[-1] / _CONFIG), job.config):
        return None
    if data_of(taken[-1]) not in (None, fingerprint.id) and job.config["resume_data"] != "new":
        return None
    return None if read_result(taken[-1]).status is Status.DONE else taken[-1]


@contextmanager
def _new_run(job: Job) -> Iterator[Run]:
    folder = _agreed_folder(job)
    with lock(folder, job.world):
        yield Run(folder, Result())


def _agreed_folder(job: Job) -> Path:
    """Return the folder of a new run, which the main process creates."""
    return Path(job.world.from_main(lambda: str(_make_folder(job))))


def _make_folder(job: Job) -> Path:
    """Create the folder that the job names, else a free one under `outputs`."""
    if job.folder is None:
        return create(Path(job.config["outputs"]) / job.folder_name)
    path = Path(job.folder)
    free = user_paths.is_dir(path, error=StorageError) and all(
        map(_is_allowed_before_run, user_paths.listed(path, error=StorageError))
    )
    return path if free else create(path)


def _is_allowed_before_run(name: str) -> bool:
    """Return True if a folder may hold this file before its run has written its config."""
    return name in _ALLOWED_BEFORE_RUN or TEMPORARY.fullmatch(name) is not None


def _has_file(path: Path) -> bool:
    """Return True if a file is there; raises StorageError if the system does not say."""
    return user_paths.is_file(path, error=StorageError)


def begun_folder(job: Job) -> Path | None:
    """Return the folder that the job names if it already holds the same run, on whatever data, else None."""
    path = Path(job.folder) / _CONFIG if job.folder else None
    if path is None or not _has_file(path) or not _has_file(path.parent / RESULT):
        return None
    return path.parent if holds_same_run(path.parent, job) else None


def on_these_data(job: Job, fingerprint: Fingerprint) -> Job:
    """Return a job whose folder holds no run on other data: where its own does, it gets another one, with a line.

    With `resume_data=new` an unfinished run goes on with the other data.
    """
    folder = begun_folder(job)
    if folder is None or job.resumed:
        return job
    own = folder_for_data(folder, fingerprint.id)
    unfinished = not read_result(folder).status.is_result
    if own == folder or (unfinished and job.config["resume_data"] == "new"):
        return job
    if not job.notes:
        raise DataError(f"{folder}: the data have changed since the sweep began; repeat the command")
    changes = saved_data(folder, read_result(folder)).changes(fingerprint)
    print_progress(f"{folder} holds this run on other data ({changes}); this one goes to {own}")
    return replace(job, folder=str(own), folder_name=own.name)


def _describe(folder: Path, job: Job, experiment: Experiment) -> None:
    """Write the overrides, code, versions, machine, data and resolved config of a run.

    The config comes last: a folder that has it can be resumed.
    """
    write_unsynced(folder / "overrides.yaml", plain_yaml.dump(list(job.overrides)))
    environment = provenance(job.overrides, device=device_name(experiment))
    environment |= data_entries(job.config, experiment)
    write_atomic(folder / "environment.json", json.dumps(environment, indent=1).encode())
    write_atomic(folder / _CONFIG, plain_yaml.dump(job.config))


@contextmanager
def _keeping_result(run: Run, plugins: Sequence[str]) -> Iterator[None]:
    """Keep `result.json` true: `running` while the body runs, then how it ended."""
    result = run.result
    began = time.monotonic() - result.seconds
    result.status, result.exit, result.reason = Status.RUNNING, None, None
    write_result(run.folder, result)
    try:
        yield
    except BaseException as error:
        ended = ending(known_cause(error, plugins))
        if ended.status is Status.INTERRUPTED:
            print_progress(f"interrupted; resume with: python -m runner resume={shlex.quote(str(run.folder))}")
        # Report the first of two failures
        with suppress(StorageError, Locked):
            _write_end(run, ended, began)
        raise
    _write_end(run, SUCCESS if result.status is Status.RUNNING else Ending(result.status, 0), began)


def _write_end(run: Run, ended: Ending, began: float) -> None:
    """Write how a run ended, and the seconds that it took."""
    result = run.result
    result.status, result.exit, result.reason = ended.status, ended.exit_code, ended.reason
    result.seconds = round(time.monotonic() - began, 3)
    write_result(run.folder, result)
