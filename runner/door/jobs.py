"""From a checked config to the job that a task starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.door.naming import group_hash, hash8, name_in, run_name
from runner.door.overrides import Given
from runner.tasks.job import Job


def single_job(config: dict[str, Any], given: Sequence[Given]) -> Job:
    """Return the job of a run by itself, which reads the test split at its end."""
    name = config["name"] or run_name((each.key, each.value) for each in given)
    folder = next((str(each.value) for each in given if each.key == "hydra.run.dir"), None)
    words = tuple(each.typed for each in given if not each.of_hydra)
    return job(config, words, name=name, folder=folder, auto={"test": "end", "figures": "always"})


def trial_job(config: dict[str, Any], words: Sequence[str], folder: Path) -> Job:
    """Return the job of one trial of a sweep, which never reads the test split unless it is told to."""
    auto = {"test": "never", "figures": "never"}
    name = name_in(folder.parent, folder.name, config)
    found = job(config, words, name=name, folder=str(folder.with_name(name)), auto=auto)
    return replace(found, notes=False, hash8=name[-8:] if name != folder.name else found.hash8)


def job(
    config: Mapping[str, Any], words: Sequence[str], *, name: str, folder: str | None, auto: Mapping[str, str]
) -> Job:
    """Return a job with its hashes, with the words that `auto` stands for in each key."""
    settled = {**config, **{key: word for key, word in auto.items() if config[key] == "auto"}}
    return Job(
        config=settled,
        overrides=tuple(words),
        folder_name=name,
        folder=folder,
        hash8=hash8(settled),
        group_hash=group_hash(settled),
    )
