"""A trial as a task of Ray: compose the words of its overrides again, check them, and run the trial.

Ray carries words, and nothing else. What it needs to know of the trial beside its overrides is one word of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.door.arguments import read_arguments
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.jobs import trial_job
from runner.door.options import Conf, find_conf
from runner.door.overrides import read_overrides
from runner.door.task_context import ENTRY
from runner.engine.saving.locking import holder
from runner.errors import ConfigError, RunnerError, describe
from runner.hashes import hash8
from runner.sweeps.launch_folder import Launch
from runner.sweeps.launcher import PAUSE, LauncherSettings
from runner.sweeps.outcome import folder_of
from runner.sweeps.pool import Pool
from runner.tasks.job import Job

# Keys whose `auto` depends on the whole sweep; a task gets the planned value
_PLANNED = ("keep", "test", "figures", "predictions")
# What the words of a trial do not say
_BESIDE = ("folder_name", "folder", "hash8", "group_hash", "notes", "search", "recipe", "is_trial")
_GPUS = "CUDA_VISIBLE_DEVICES"
# Seconds that the processes of a lost node have to end before their trial goes on here
_PATIENCE = 120.0
# The pool of this process by the GPUs that Ray gave it: it has loaded torch and the data
_pools: dict[str | None, Pool] = {}


def words_for(
    conf: Conf, job: Job, number: int, launch: Launch, settings: LauncherSettings, *, has_gpu: bool
) -> list[str]:
    """Return all that a task of Ray is told: what it needs beside the overrides in JSON, then flags and overrides."""
    own = {word.partition("=")[0].lstrip("+") for word in job.overrides}
    mine = [folder for folder in conf.folders[1:] if folder not in conf.more]
    beside = {
        **{key: getattr(job, key) for key in _BESIDE},
        "planned": hash8(job.config),
        "allow_unused": conf.allow_unused,
        "number": number,
        "launch": {**asdict(launch), "folder": str(launch.folder)},
        "settings": {
            **{key: getattr(settings, key) for key in ("threads", "timeout", "retries", "memory")},
            "workers": 1,
        },
        "has_gpu": has_gpu,
        "start_folder": user_paths.start_folder(),
        "path": [path or user_paths.full(".") for path in sys.path],
    }
    return [
        json.dumps(beside),
        *(["--config-dir", str(mine[0])] if mine else []),
        *(["--config-name", conf.primary] if conf.primary != "config" else []),
        *job.overrides,
        *(f"{key}={job.config[key]}" for key in _PLANNED if key not in own),
    ]


def run_words(words: Sequence[str]) -> str:
    """Run the trial that words describe; its result is in its folder. Return an error in words, empty if it ran."""
    beside = json.loads(words[0])
    launch = Launch(**{**beside["launch"], "folder": Path(beside["launch"]["folder"])})
    if not launch.wanted():
        return ""
    launch.note(beside["number"])
    # The sweep forgets runs that it stops before they are noted
    if not launch.wanted():
        return ""
    if not beside["has_gpu"]:
        os.environ[_GPUS] = ""
    sys.path[:0] = [path for path in beside["path"] if path not in sys.path]
    try:
        with user_paths.anchored(beside["start_folder"]):
            job = _composed(words[1:], beside)
            _wait_for(job, launch.wanted)
            _run(job, LauncherSettings(**beside["settings"]), launch.wanted)
    except (RunnerError, OSError) as error:
        return str(error) if isinstance(error, RunnerError) else describe(error)
    return ""


def _composed(words: Sequence[str], beside: Mapping[str, Any]) -> Job:
    """Return the job of a trial, composed and checked here; raises ConfigError if it is not the planned one."""
    arguments = read_arguments(words)
    conf = find_conf(arguments.config_dir, arguments.config_name)._replace(allow_unused=beside["allow_unused"])
    given = read_overrides(conf, arguments.overrides)
    with hydra_opened(conf):
        config = compose_run(conf, compose_parts(conf, given), given)
    job = trial_job(config, arguments.overrides, Path(beside["folder"]), conf.folders)
    if (composed := hash8(job.config)) != (planned := beside["planned"]):
        raise ConfigError(f"config: got {composed} here, must be {planned} as planned; do config files differ?")
    overrides = tuple(word for word in arguments.overrides)
    return replace(job, overrides=overrides, **{key: beside[key] for key in _BESIDE})


def _wait_for(job: Job, wanted: Callable[[], bool]) -> None:
    """Wait while another process holds the folder of a trial: on a lost node, its processes are about to end."""
    until = time.monotonic() + _PATIENCE
    while holder(folder_of(job)) and wanted() and time.monotonic() < until:
        time.sleep(PAUSE)


def _run(job: Job, settings: LauncherSettings, wanted: Callable[[], bool]) -> None:
    """Run a trial in a process of its own; once it is not wanted any more, it saves itself and ends."""
    pool = _pool(job, settings)
    number, stopped = pool.submit(job), False
    try:
        while pool.next_done(PAUSE) is None and not pool.idle():
            if not stopped and not wanted():
                pool.stop(number)
                stopped = True
    except BaseException:
        _pools.clear()
        pool.close()
        raise


def _pool(job: Job, settings: LauncherSettings) -> Pool:
    """Return the pool of this process for the GPUs that Ray gave it."""
    gpus = os.environ.get(_GPUS)
    if gpus not in _pools:
        while _pools:
            _pools.popitem()[1].close()
        _pools[gpus] = Pool(settings, like=job, entry=ENTRY)
    return _pools[gpus]
