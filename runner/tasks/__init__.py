"""What a user can ask for, one file each."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys

from runner.engine.interruption import heed
from runner.registry import build
from runner.tasks.job import Job
from runner.tasks.plugins import known_cause, load_plugins
from runner.tasks.prefetch_data import prefetch


def start(job: Job) -> int:
    """Run the task that the job's config names and return the exit code; plugins are imported first.

    Raises:
        RunnerError: for what the user can act on, a plugin's fault (PluginError) and sizes beyond the memory included.
    """
    if "torch" not in sys.modules:
        prefetch(job.config)
    load_plugins(job.config["plugins"])
    name = job.config["task"]["name"]
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:  # else it is a plugin's
        importlib.import_module(f"{__name__}.{name}")
    heed()  # the imports took most of the time so far
    if not gc.isenabled():  # `runner.__main__.command` spared the imports the collector; now there will be garbage
        gc.freeze()
        gc.enable()
    try:
        code: int = build("task", job.config["task"], job=job)
    except (Exception, SystemExit) as error:
        if (cause := known_cause(error, job.config["plugins"])) is not error:
            raise cause from error
        raise
    return code


def load_tasks() -> None:
    """Import every task that comes with runner, so that all are registered."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
