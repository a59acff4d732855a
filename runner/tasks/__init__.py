"""What a user can ask for, one file each."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys

from runner.engine.interruption import heed
from runner.errors import ConfigError, too_large
from runner.registry import build
from runner.tasks.job import Job
from runner.tasks.prefetch_data import prefetch


def start(job: Job) -> int:
    """Run the task that the job's config names and return the process's exit code.

    Imports the user's plugins first, so that their components are registered like ours.
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
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        if refusal := too_large(error):
            raise refusal from error
        raise
    return code


def load_tasks() -> None:
    """Import every task of ours, where one is to be told of and not just run."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)


def load_plugins(modules: list[str]) -> None:
    """Import the modules that `plugins=[...]` names on the command line."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"plugins: cannot import '{name}': {error}") from error
