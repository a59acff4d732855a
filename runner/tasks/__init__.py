"""What a user can ask for, one file each."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.engine.garbage import collecting
from runner.engine.interruption import heed
from runner.registry import asks, build, names
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.plugins import known_cause, load_plugins
from runner.tasks.prefetch_data import prefetch


def start(job: Job, *, vary: Vary | None = None, launch: Launch | None = None) -> int:
    """Run the task that the job's config names and return the exit code; plugins are imported first.

    A task that asks for `vary` or `launch` by parameter name gets what is given here.

    Raises:
        RunnerError: for what the user can act on, a plugin's fault (PluginError) and sizes beyond the memory included.

    """
    if "torch" not in sys.modules:
        prefetch(job.config)
    load_plugins(job.config["plugins"])
    if job.config["resume"]:
        job = _resumed(job)
    _load_task(job.config["task"]["name"])
    # Most of the time so far went into imports, when signals may have arrived
    heed()
    context: dict[str, Any] = {"vary": vary, "launch": launch}
    context = {name: given for name, given in context.items() if given}
    with collecting():
        try:
            code: int = build("task", job.config["task"], job=job, **context)
        except (Exception, SystemExit) as error:
            if (cause := known_cause(error, job.config["plugins"])) is not error:
                raise cause from error
            raise
    return code


def _load_task(name: str) -> None:
    """Import the task of a name, if it is one of ours and not a plugin's."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        importlib.import_module(f"{__name__}.{name}")


def _resumed(job: Job) -> Job:
    """Return the job of the saved run that `resume=<folder>` names, if its task launches runs; else the job itself.

    task=train resumes its own folders, and says what is wrong with any other.
    """
    from runner.tasks.run_folder import resumed_job

    name = saved_task(job.config["resume"])
    if name is None or name == "train":
        return job
    _load_task(name)
    return resumed_job(job, name) if name in names("task") and asks("task", name, "launch") else job


def saved_task(folder: str) -> str | None:
    """Return the name of the task that a run folder is of, None if there is no config in it."""
    path = Path(folder) / "config.yaml"
    config = plain_yaml.load(path) if os.path.isfile(path) else None  # noqa: PTH113
    task = config.get("task") if isinstance(config, dict) else None
    return str(task.get("name")) if isinstance(task, dict) else None


def load_tasks() -> None:
    """Import every task that comes with runner, so that all are registered."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
