"""From a checked config to the job that a task starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.door.naming import name_in, run_name, trial_name
from runner.door.overrides import ParsedOverride
from runner.door.weights_identity import with_weights_identified
from runner.hashes import group_hash, hash8
from runner.tasks.job import Job
from runner.trackers.command_line import with_trackers_asked_for
from runner.unused_settings import recipe_in

# What `keep=auto` means, except in sweeps of more trials
_KEEP = {"keep": "best+last"}
_FEW_TRIALS = 100


def single_job(config: dict[str, Any], given: Sequence[ParsedOverride]) -> Job:
    """Return the job of a single run, which reads the test split at its end."""
    name = config["name"] or run_name((each.key, each.value) for each in given)
    folder = next((str(each.value) for each in given if each.key == "hydra.run.dir"), None)
    words = tuple(each.typed for each in given if not each.sets_hydra)
    config = with_trackers_asked_for(config, words, is_trial=False)
    return _make_job(config, words, name=name, folder=folder, auto={"test": "end", "figures": "always", **_KEEP})


def trial_job(
    config: dict[str, Any],
    words: Sequence[str],
    folder: Path,
    folders: Sequence[Path] = (),
    *,
    given: Sequence[tuple[str, Any]] = (),
    trials: float = 1,
    command: Sequence[str] | None = None,
) -> Job:
    """Return the job of one of the `trials` of a sweep, which never reads the test split unless `test` says so.

    `given` is what its folder's name says, and `command` the words of the command that launches the trial, by default
    its own.
    """
    config = with_trackers_asked_for(config, words if command is None else command, is_trial=True)
    auto = {
        "test": "never",
        "figures": "never",
        "predictions": "never",
        **(_KEEP if trials <= _FEW_TRIALS else {"keep": "best"}),
    }
    name = name_in(folder.parent, folder.name, config, given)
    made = _make_job(config, words, name=name, folder=str(folder.with_name(name)), auto=auto)
    # In a sweep that an older version started, trials keep their old names
    older = name != folder.name
    return replace(made, notes=False, is_trial=True, folders=tuple(folders), hash8=name[-8:] if older else made.hash8)


def variant_jobs(variants: Sequence[Mapping[str, Any]], folder: Path, like: Job) -> list[Job]:
    """Return the jobs of the runs that a job's task launches, in folders below `folder` named by what differs."""
    flat = [_flatten(config) for config in variants]
    keys = dict.fromkeys(key for each in flat for key in each)
    differing = [key for key in keys if len({repr(each.get(key)) for each in flat}) > 1]
    jobs = []
    for config, values in zip(variants, flat, strict=True):
        given = [(key, values[key]) for key in differing if key in values]
        words = [f"{key}={value}" for key, value in given]
        own = folder / trial_name(given, config)
        # The job's own meaning of `auto` is that of a single run
        auto = {} if "keep" in like.given or like.is_trial else {"keep": "auto"}
        job = trial_job(
            {**config, **auto}, words, own, like.folders, given=given, trials=len(variants), command=like.overrides
        )
        jobs.append(replace(job, recipe=like.recipe))
    return jobs


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted keys; a component's name has its group as key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _flatten(value, f"{prefix}{key}.")
        else:
            found[prefix.removesuffix(".") if key == "name" and prefix else f"{prefix}{key}"] = value
    return found


def _make_job(
    config: Mapping[str, Any], words: Sequence[str], *, name: str, folder: str | None, auto: Mapping[str, str]
) -> Job:
    """Return a job with its hashes; `auto` is replaced by its meaning in each key."""
    identified = with_weights_identified(dict(config))
    resolved = {**identified, **{key: word for key, word in auto.items() if config[key] == "auto"}}
    return Job(
        config=resolved,
        overrides=tuple(words),
        folder_name=name,
        folder=folder,
        hash8=hash8(resolved),
        group_hash=group_hash(resolved),
        given=frozenset(key for key in auto if config[key] != "auto"),
        recipe=recipe_in(words),
    )
