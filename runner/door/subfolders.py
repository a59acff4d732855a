"""The folders of trials that `hydra.sweep.subdir` names: one for each trial, below that of the sweep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from runner import user_paths
from runner.door.folders import SUBDIR, Look, look_up, references, resolved
from runner.door.overrides import ParsedOverride
from runner.door.variants import Trial
from runner.errors import ConfigError, brief
from runner.search.space import Space
from runner.tasks.job import Job

_ALL = "hydra.job.override_dirname"


def given_subdir(given: Iterable[ParsedOverride]) -> ParsedOverride | None:
    """Return the override that names the folders of trials, None if there is none."""
    return next((each for each in given if each.key == SUBDIR), None)


def in_subfolders(subdir: ParsedOverride, sweep: Path, jobs: Sequence[Job], trials: Iterable[Trial]) -> list[Job]:
    """Return the jobs of a grid with their own folders; raises ConfigError if two trials would share one."""
    looks = [look_up(trial.config, trial.choices, trial.words, number) for number, trial in enumerate(trials)]
    folders = [_folder(sweep, subdir, look) for look in looks]
    _check_apart(subdir, folders, [job.folder_name.rpartition("-")[0] for job in jobs])
    return [_in_folder(job, folder, sweep) for job, folder in zip(jobs, folders, strict=True)]


def point_in_subfolder(subdir: ParsedOverride, sweep: Path, job: Job, trial: Trial) -> Job:
    """Return the job of a point of a search with its own folder."""
    return _in_folder(job, _folder(sweep, subdir, look_up(trial.config, trial.choices, trial.words)), sweep)


def check_differs(subdir: ParsedOverride, space: Space, seeds: int) -> None:
    """Raise ConfigError unless all points of a search, and their seeds, have different folders."""
    named = references(subdir)
    text = brief(str(subdir.value))
    if any(name in ("hydra.job.num", "hydra.job.id") for name in named):
        raise ConfigError(f"{SUBDIR}: got '{text}', but the points of a search have no fixed number; use ${{{_ALL}}}")
    keys = [axis.key for axis in space.axes] + (["seed"] if seeds > 1 else [])
    for key in keys:
        if not {_ALL, key, f"{key}.name", f"hydra.runtime.choices.{key}"} & set(named):
            raise ConfigError(f"{SUBDIR}: got '{text}', must differ between points: add ${{{key}}} or ${{{_ALL}}}")


def _folder(sweep: Path, subdir: ParsedOverride, look: Look) -> Path:
    """Return the folder of a trial below its sweep; raises ConfigError if it would be elsewhere."""
    text = resolved(subdir, look)
    below = os.path.normpath(text)
    if below == "." or below.startswith("/") or below.split("/")[0] == "..":
        raise ConfigError(f"{SUBDIR}: got '{brief(text)}', must be a folder of its own below that of the sweep")
    return sweep / below


def _check_apart(subdir: ParsedOverride, folders: Sequence[Path], names: Sequence[str]) -> None:
    """Raise ConfigError if two trials would share a folder, or one would be in that of another."""
    text = brief(str(subdir.value))
    first: dict[Path, str] = {}
    for folder, name in zip(folders, names, strict=True):
        if folder in first:
            says = f"{first[folder]} and {name} would share {folder}; add ${{hydra.job.num}}"
            raise ConfigError(f"{SUBDIR}: got '{text}', must differ between trials: {says}")
        first[folder] = name
    for folder, name in first.items():
        if above := next((each for each in folder.parents if each in first), None):
            says = f"{name} would be in {above}, the folder of {first[above]}"
            raise ConfigError(f"{SUBDIR}: got '{text}', must not put one trial into another: {says}")


def _in_folder(job: Job, folder: Path, sweep: Path) -> Job:
    """Return a job with its folder."""
    return replace(job, folder=str(folder), folder_name=user_paths.relative(folder, sweep))
