"""The folder of a run: create or resume it, lock it, describe the run, and write its result."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.assemble import Experiment
from runner.engine.provenance import provenance
from runner.engine.saving.folder import RESULT, Result, candidates, create, read_result, write_result
from runner.engine.saving.locking import LOCK, lock
from runner.engine.saving.storage import TEMPORARY, write_atomic, write_unsynced
from runner.engine.world import ALONE, World
from runner.errors import ConfigError, StorageError, wrong
from runner.keys import settings_with
from runner.notebook.book import record
from runner.numerics import completed, same_config
from runner.roles import Role
from runner.schema import check
from runner.settings import SETTINGS
from runner.status import SUCCESS, Ending, Status, ending
from runner.tasks.job import Job
from runner.tasks.plugins import known_cause
from runner.tasks.report import device_name, print_progress

_CONFIG = "config.yaml"
# Keys that may change with `resume=`
MAY_CHANGE = settings_with(Role.EXECUTION)
# Keys that the config of every version has
_KEYS_OF_EVERY_VERSION = {"data", "model", "optim", "task", "seed", "steps", "epochs"}
# Files that a folder may hold before its run has begun
_ALLOWED_BEFORE_RUN = {"trial.log", LOCK, RESULT, "overrides.yaml", "environment.json"}


@dataclass(frozen=True)
class Run:
    """A run folder that this process has locked, and its result."""

    folder: Path
    result: Result


@contextmanager
def run_folder(job: Job, experiment: Experiment, *, resumed: Run | None = None) -> Iterator[Run]:
    """Lock the folder of a run while the body runs, and write a result that says how it ended.

    Creates and locks a new folder, unless one is `resumed`, and prints its path. Writes config, environment and
    `result.json` into it, with the status `running`, at the end `done`, the status that the body set, or that of the
    exception. A training run is then recorded in the notebook, however it ended.
    """
    with ExitStack() as held:
        run = resumed or held.enter_context(_new_run(job))
        print_progress(f"run {run.folder} on {device_name(experiment)}")
        if job.notes:
            held.callback(record, run.folder, Path(job.config["outputs"]))
        held.enter_context(_keeping_result(run, job.config["plugins"]))
        if not (run.folder / _CONFIG).exists():
            _describe(run.folder, job, experiment)
        yield run


@contextmanager
def existing_run(folder: Path, world: World = ALONE) -> Iterator[Run]:
    """Lock the folder of an earlier run; raises Locked, or CheckpointError if its result cannot be read."""
    with lock(folder, world):
        yield Run(folder, read_result(folder))


@contextmanager
def continued_run_folder(job: Job, experiment: Experiment) -> Iterator[Run]:
    """Lock the folder in which an earlier process started the same run and did not finish it, else a new one."""
    with ExitStack() as held:
        folder = _interrupted_folder(job)
        resumed = held.enter_context(existing_run(folder)) if folder else None
        yield held.enter_context(run_folder(job, experiment, resumed=resumed))


def _interrupted_folder(job: Job) -> Path | None:
    """Return the folder of a run that an earlier process started and did not finish, else None.

    That is the folder that the job names, or the newest of those under `outputs` that have its name.
    """
    if job.folder is not None:
        return Path(job.folder) if job.resumed else begun_folder(job)
    path = Path(job.config["outputs"]) / job.folder_name
    taken = list(itertools.takewhile(lambda each: (each / RESULT).is_file(), candidates(path)))
    if not taken or not (taken[-1] / _CONFIG).is_file():
        return None
    if not same_config(plain_yaml.load(taken[-1] / _CONFIG), job.config):
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
    free = os.path.isdir(path) and all(map(_is_allowed_before_run, os.listdir(path)))  # noqa: PTH112, PTH208  (no error for a name too long)
    return path if free else create(path)


def _is_allowed_before_run(name: str) -> bool:
    """Return True if a folder may hold this file before its run has written its config."""
    return name in _ALLOWED_BEFORE_RUN or TEMPORARY.fullmatch(name) is not None


def begun_folder(job: Job) -> Path | None:
    """Return the folder that the job names if it already contains the same run, else None.

    It does if its name ends in the hash of the config, as in a sweep; keys that the hash omits (paths, device, workers,
    logging) may then differ. Any other folder must hold an equal config.
    """
    path = Path(job.folder) / _CONFIG if job.folder else None
    if path is None or not os.path.isfile(path) or not (path.parent / RESULT).is_file():  # noqa: PTH113
        return None
    named = bool(job.hash8) and path.parent.name.endswith(f"-{job.hash8}")
    return path.parent if named or same_config(plain_yaml.load(path), job.config) else None


def _describe(folder: Path, job: Job, experiment: Experiment) -> None:
    """Write the overrides, code, versions, machine, data and resolved config of a run.

    The config comes last: a folder that has it can be resumed.
    """
    write_unsynced(folder / "overrides.yaml", plain_yaml.dump(list(job.overrides)))
    environment = {**provenance(job.overrides, device=device_name(experiment)), "data": experiment.data.as_json()}
    write_atomic(folder / "environment.json", json.dumps(environment, indent=1).encode())
    write_atomic(folder / _CONFIG, plain_yaml.dump(job.config))


def resumed_job(job: Job, task: str) -> Job:
    """Return the job that `resume=<folder>` continues, of a task other than train."""
    folder = str(job.config["resume"])
    config = saved_config(folder, job, key="resume", may_change=MAY_CHANGE, tasks=(task,))
    return replace(job, config=config, folder=folder, folder_name=Path(folder).name, resumed=True)


def saved_config(
    folder: str, job: Job, *, key: str, may_change: Collection[str], tasks: Collection[str] = ("train",)
) -> dict[str, Any]:
    """Return the config of an earlier run, with this command's values for the keys in `may_change`.

    Raises ConfigError if the folder holds no training run, or if the command line sets any other key.
    """
    path = Path(folder) / _CONFIG
    if not os.path.isfile(path):  # noqa: PTH113
        raise ConfigError(f"{key}: got '{folder}', must be a run folder (it has no {_CONFIG})")
    for override in job.overrides:
        name = override.lstrip("+").partition("=")[0]
        if name != key and name.partition(".")[0] not in may_change:
            raise ConfigError(f"{name}: cannot be changed with {key}=... (allowed: {', '.join(sorted(may_change))})")
    config = plain_yaml.load(path)
    if (
        not isinstance(config, dict)
        or not _KEYS_OF_EVERY_VERSION.issubset(config)
        or not config.keys() <= job.config.keys()
    ):
        raise ConfigError(f"{path}: is not a config of this version of runner")
    config = completed(config)
    if missing := [name for name in job.config if name not in config]:
        raise ConfigError(f"{path}: {missing[0]}: missing, and every version of runner writes it")
    for name, like in job.config.items():
        _check_saved(path, name, config[name], like)
    task = config["task"].get("name") if isinstance(config["task"], dict) else config["task"]
    if task not in tasks:
        raise ConfigError(f"{key}: got '{folder}', must be the folder of a training run (its task is {task!r})")
    given = {override.lstrip("+").partition("=")[0].partition(".")[0] for override in job.overrides}
    # Never the saved value: the user must confirm with each command
    given.add("resume_numerics")
    return config | {name: job.config[name] for name in given & set(may_change)}


def _check_saved(path: Path, key: str, value: Any, like: Any) -> None:
    """Check the form of one key of a saved config, which the user may have edited; assembly checks the rest."""
    if key in SETTINGS:
        check(f"{path}: {key}", value, SETTINGS[key])
    elif not isinstance(value, dict):
        raise wrong(f"{path}: {key}", value, "a mapping {a: b}")
    elif "name" in like:
        check(f"{path}: {key}.name", value.get("name"), str)
    elif strange := [part for part in value.values() if not isinstance(part, dict)]:
        raise wrong(f"{path}: {key}", strange[0], "a mapping {a: b}")


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
        with suppress(StorageError):
            _write_end(run, ended, began)
        raise
    _write_end(run, SUCCESS if result.status is Status.RUNNING else Ending(result.status, 0), began)


def _write_end(run: Run, ended: Ending, began: float) -> None:
    """Write how a run ended, and the seconds that it took."""
    result = run.result
    result.status, result.exit, result.reason = ended.status, ended.exit_code, ended.reason
    result.seconds = round(time.monotonic() - began, 3)
    write_result(run.folder, result)
