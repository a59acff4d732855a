"""The files of a run folder that say what the run is: its config, overrides, code, versions, machine and data."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.assemble import Experiment
from runner.engine.provenance import code_origin, provenance
from runner.engine.saving.folder import read_environment
from runner.engine.saving.storage import write_atomic, write_unsynced
from runner.engine.user_code import CODE, CONTINUED, imported_code
from runner.hashes import CONTENT, content_of, digest
from runner.passwords import masked_word
from runner.registry import MAIN, registered_in
from runner.tasks.find_folder import MAIN_CODE
from runner.tasks.job import Job
from runner.tasks.report import device_name
from runner.tasks.saved_data import data_entries

_CONFIG = "config.yaml"
_ENVIRONMENT = "environment.json"


def describe(folder: Path, job: Job, experiment: Experiment) -> None:
    """Write the overrides, code, versions, machine, data and resolved config of a run.

    The config comes last: a folder that has it can be resumed.
    """
    write_unsynced(folder / "overrides.yaml", plain_yaml.dump(list(map(masked_word, job.overrides))))
    write_environment(folder, job, experiment)
    if sources := _sources_of_main(job.config["plugins"]):
        write_unsynced(folder / MAIN_CODE, "\n\n".join(sources.values()).encode())
    write_atomic(folder / _CONFIG, plain_yaml.dump(job.config))


def write_environment(folder: Path, job: Job, experiment: Experiment) -> None:
    """Write the code, versions, machine and data of a run."""
    environment = provenance(job.overrides, device=device_name(experiment))
    environment |= {
        CODE: imported_code(job.config["plugins"]) | _code_of_main(job.config["plugins"]),
        CONTENT: content_of(job.config),
    }
    environment |= data_entries(job.config, experiment)
    environment |= {"processes": experiment.world.size} if experiment.world.size > 1 else {}
    write_atomic(folder / _ENVIRONMENT, json.dumps(environment, indent=1).encode())


def _sources_of_main(plugins: Sequence[str]) -> dict[str, str]:
    """Return the source of each component that a notebook or script registered itself, as far as Python knows it."""
    found = {}
    for kind, name, factory in registered_in(MAIN) if MAIN in plugins else ():
        with suppress(OSError, TypeError):
            found[f"{MAIN}.{kind}.{name}"] = inspect.getsource(factory)
    return found


def _code_of_main(plugins: Sequence[str]) -> dict[str, str]:
    """Return the digests of these sources."""
    return {name: digest(text) for name, text in _sources_of_main(plugins).items()}


def record_origin(folder: Path, plugins: Sequence[str]) -> None:
    """Note in environment.json with which code and versions a run goes on, if those are others than before."""
    found, now = read_environment(folder), {**code_origin(), CODE: imported_code(plugins) | _code_of_main(plugins)}
    listed = found.get(CONTINUED)
    earlier: list[Any] = listed if isinstance(listed, list) else []
    last = [found, *earlier][-1]
    if found and isinstance(last, dict) and any(_lacks(last.get(key), value) for key, value in now.items()):
        write_atomic(folder / _ENVIRONMENT, json.dumps({**found, CONTINUED: [*earlier, now]}, indent=1).encode())


def _lacks(before: Any, now: Any) -> bool:
    """Return True if an entry of environment.json is not the present one; it may say more."""
    if isinstance(before, dict) and isinstance(now, dict):
        return any(before.get(key) != value for key, value in now.items())
    return bool(before != now)
