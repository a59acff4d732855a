"""A run's folder: where it lies, what stands in it from the start, and the status it is left with."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.engine.provenance import provenance
from runner.engine.saving.folder import LOCK, RESULT, Result, create, write_result
from runner.engine.saving.storage import TEMPORARY, put, write_atomic
from runner.errors import ConfigError, Diverged, RunnerError, StorageError, too_large, wrong
from runner.numerics import completed, same_config
from runner.schema import check
from runner.settings import SETTINGS
from runner.tasks.job import Job

CONFIG = "config.yaml"
FIRST = {"data", "model", "optim", "task", "seed", "steps", "epochs"}  # keys that every config has had
UNBEGUN = {"trial.log", LOCK, RESULT, "overrides.yaml", "environment.json"}  # what may be there before there is a run


def place(job: Job) -> Path:
    """Make the folder of a new run: the one that was named, else a free one under `outputs`."""
    if job.folder is None:
        return create(Path(job.config["outputs"]) / job.folder_name)
    path = Path(job.folder)
    free = os.path.isdir(path) and all(map(unbegun, os.listdir(path)))  # noqa: PTH112, PTH208  (no error for a name too long)
    return path if free else create(path)


def unbegun(name: str) -> bool:
    """Tell whether a file may lie in a folder in which no run has said yet what it is."""
    return name in UNBEGUN or TEMPORARY.fullmatch(name) is not None


def begun(job: Job) -> Path | None:
    """Return the folder that was named for the run if it already holds this very run, else None.

    It does if its name ends in the hash of the config, which a sweep gives it; what the hash leaves out (paths, device,
    workers, logging) may differ then.
    """
    path = Path(job.folder) / CONFIG if job.folder else None
    if path is None or not os.path.isfile(path) or not (path.parent / RESULT).is_file():  # noqa: PTH113
        return None
    named = bool(job.hash8) and path.parent.name.endswith(f"-{job.hash8}")
    return path.parent if named or same_config(plain_yaml.load(path), job.config) else None


def describe(folder: Path, job: Job, *, device: str) -> None:
    """Write what the run is: overrides, the code, versions and machine that it runs on, and the resolved config.

    The config comes last: it is what makes the folder one of a run, which can be gone on with.
    """
    put(folder / "overrides.yaml", plain_yaml.dump(list(job.overrides)))
    environment = provenance(job.overrides, device=device)
    write_atomic(folder / "environment.json", json.dumps(environment, indent=1).encode())
    write_atomic(folder / CONFIG, plain_yaml.dump(job.config))


def saved_config(folder: str, job: Job, *, key: str, may_change: Collection[str]) -> dict[str, Any]:
    """Return the config of an earlier run, with those of this command's settings that may differ.

    Raises ConfigError if the folder is no run's, or if the command line sets anything else.
    """
    path = Path(folder) / CONFIG
    if not os.path.isfile(path):  # noqa: PTH113
        raise ConfigError(f"{key}: got '{folder}', must be a run folder (it has no {CONFIG})")
    for override in job.overrides:
        name = override.lstrip("+").partition("=")[0]
        if name != key and name.partition(".")[0] not in may_change:
            raise ConfigError(f"{name}: cannot be changed with {key}=... (what can: {', '.join(sorted(may_change))})")
    config = plain_yaml.load(path)
    if not isinstance(config, dict) or not FIRST.issubset(config) or not config.keys() <= job.config.keys():
        raise ConfigError(f"{path}: is not a config of this version of runner")
    config = completed(config)
    if missing := [name for name in job.config if name not in config]:
        raise ConfigError(f"{path}: {missing[0]}: missing, and every version of runner writes it")
    for name, like in job.config.items():
        check_saved(path, name, config[name], like)
    task = config["task"].get("name") if isinstance(config["task"], dict) else config["task"]
    if task != "train":
        raise ConfigError(f"{key}: got '{folder}', must be the folder of a training run (its task is {task!r})")
    given = {override.lstrip("+").partition("=")[0].partition(".")[0] for override in job.overrides}
    given.add("resume_numerics")  # not the value saved: whoever goes on now must say so
    return config | {name: job.config[name] for name in given & set(may_change)}


def check_saved(path: Path, key: str, value: Any, like: Any) -> None:
    """Check a key of a saved config, which anyone may have edited, for its form: assembly checks the rest."""
    if key in SETTINGS:
        check(f"{path}: {key}", value, SETTINGS[key])
    elif not isinstance(value, dict):
        raise wrong(f"{path}: {key}", value, "a mapping {a: b}")
    elif "name" in like:
        check(f"{path}: {key}.name", value.get("name"), str)
    elif strange := [part for part in value.values() if not isinstance(part, dict)]:
        raise wrong(f"{path}: {key}", strange[0], "a mapping {a: b}")


@contextmanager
def reported(folder: Path, result: Result) -> Iterator[None]:
    """Keep `result.json` true: running while the body runs, then how it ended."""
    began = time.monotonic() - result.seconds
    result.status, result.exit, result.reason = "running", None, None
    write_result(folder, result)
    try:
        yield
    except BaseException as error:
        result.status, result.exit, result.reason = ending(too_large(error) or error)
        if result.status == "interrupted":
            sys.stderr.write(f"interrupted; go on with: python -m runner resume={shlex.quote(str(folder))}\n")
        with suppress(StorageError):  # of two failures the first one is told of
            closed(folder, result, began)
        raise
    closed(folder, result, began)


def closed(folder: Path, result: Result, began: float) -> None:
    """Write how a run ended, and the seconds since it began."""
    result.seconds = round(time.monotonic() - began, 3)
    write_result(folder, result)


def ending(error: BaseException) -> tuple[str, int, str]:
    """Return status, exit code and reason of a run that an exception ended."""
    if isinstance(error, Diverged):
        return "diverged", error.exit_code, str(error)
    if isinstance(error, RunnerError):
        return "failed", error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", getattr(error, "exit_code", 130), str(error) or "SIGINT"
    return "failed", 70, f"{type(error).__name__}: {error}"
