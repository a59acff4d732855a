"""Commands to copy after a run or a sweep, quoted for a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runner import user_paths
from runner.engine.saving.ensemble_file import is_ensemble
from runner.engine.saving.folder import RESULT, Result, read_result
from runner.errors import RunnerError, escaped
from runner.registry import MAIN
from runner.tasks.job import Job
from runner.user_paths import real

# Data sets whose examples are no image files
_NO_IMAGES = ("arrays", "table", "synthetic", "gaussian")
# Most neighbors of a run that are looked at
_MOST_RUNS = 20
# Words of a trial that are no part of its configuration
_OF_SWEEP = ("hydra.", "hydra/", "sweep=", "name=", "resume=", "rerun=")


def command_line(*words: str) -> str:
    """Return a command that runs this program with some words, as this process was started."""
    program = "runner" if Path(sys.argv[0]).name in ("runner", "runner.exe") else "python -m runner"
    return escaped(" ".join([program, *map(shlex.quote, words)]))


def tensorboard_folder(folder: Path, job: Job) -> str:
    """Return the `--logdir` that shows the run beside its neighbors, quoted for a shell."""
    outputs = Path(job.config["outputs"])
    top = outputs if real(folder).is_relative_to(real(outputs)) else folder
    return escaped(shlex.quote(os.fspath(top)))


def after_run(folder: Path, job: Job, result: Result) -> list[str]:
    """Return lines with what to do after a run; a trial of a sweep has none but where its logs are."""
    view = f"view          tensorboard --logdir {tensorboard_folder(folder, job)}"
    if job.is_trial or MAIN in job.config["plugins"]:
        return [view]
    given = [word for word in job.overrides if word.startswith("plugins=")]
    lines = [f"evaluate      {command_line('task=evaluate', f'run={folder}', *given)}"]
    if job.config["data"]["name"] not in _NO_IMAGES:
        words = ("task=predict", f"run={folder}", "task.images=photos", "task.out=predictions.csv", *given)
        lines.append(f"predict       {command_line(*words)}")
    if other := _latest_neighbor(folder, result):
        listed = ",".join(f'"{path}"' for path in (other, folder))
        lines.append(f"compare       {command_line('task=compare', f'runs=[{listed}]')}")
    return [*lines, view]


def after_ensemble(folder: Path, job: Job, data: str) -> list[str]:
    """Return lines with what to do with the folder of an ensemble on a data set."""
    given = [word for word in job.overrides if word.startswith("plugins=")]
    if MAIN in job.config["plugins"]:
        return []
    run = f"run={folder}"
    lines = [f"evaluate      {command_line('task=evaluate', run, 'task.split=val', *given)}"]
    if data not in _NO_IMAGES:
        words = ("task=predict", run, "task.images=photos", "task.out=predictions.csv", *given)
        lines.append(f"predict       {command_line(*words)}")
    return [*lines, f"export        {command_line('task=export', run, 'task.out=model.pt2', *given)}"]


def _latest_neighbor(folder: Path, result: Result) -> Path | None:
    """Return the latest other run beside a run that has scores on the same data, None if there is none."""
    if not result.data or not _can_be_quoted(folder):
        return None
    with suppress(RunnerError, OSError):
        beside = [folder.parent / name for name in user_paths.listed(folder.parent) if name != folder.name]
        found = [(status.st_mtime, path) for path in beside if (status := user_paths.status(path / RESULT))]
        for _, path in sorted(found, reverse=True)[:_MOST_RUNS]:
            with suppress(RunnerError):
                other = read_result(path)
                if (
                    _can_be_quoted(path)
                    and not is_ensemble(path, key="outputs")
                    and other.scores.get("val")
                    and other.data
                    and other.data[-1] == result.data[-1]
                ):
                    return path
    return None


def _can_be_quoted(path: Path) -> bool:
    """Return True if a path can stand in quotes in a list: it has no quote or backslash, and is no pattern."""
    return not set(str(path)) & set('"\\*?[]')


def after_sweep(words: Sequence[str], what: str, folder: Path, given: Sequence[str]) -> list[str]:
    """Return lines with the best configuration of a sweep and what to do next.

    Args:
        words: The overrides of the best trial.
        what: Its score in words.
        folder: The folder of the sweep.
        given: Other words of the command line: `--config-dir ...`.
    """
    kept = [word for word in words if not word.lstrip("+").startswith(_OF_SWEEP)]
    return [
        f"best          {what}",
        f"run it        {command_line(*given, *kept)}",
        f"compare       {command_line('task=compare', f'runs={folder}')}",
        # Not all runs: their names would begin with the sweep's, and TensorBoard cuts them after 24 letters
        f"view          tensorboard --logdir {escaped(shlex.quote(os.fspath(folder)))}",
    ]
