"""A sweep planned: every trial composed and checked before the first one starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.door.axes import Space, searched
from runner.door.compose import Parts, chooses, plain, quoted
from runner.door.composer import check_trials
from runner.door.jobs import trial_job
from runner.door.naming import digest, is_named, shortened
from runner.door.options import Conf
from runner.door.overrides import Given, spread
from runner.errors import ConfigError
from runner.sweeps.knobs import Knobs, read_knobs
from runner.tasks.job import Job

LAUNCHER = "hydra_plugins.runner_launcher.RunnerLauncher"
SEARCH = "hydra_plugins.runner_optuna.RunnerOptuna"


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: its folder, what Hydra is to be told, and its trials' folders if they are known before."""

    folder: Path
    outputs: Path  # where its notebook is
    words: tuple[str, ...]
    trials: tuple[str, ...]
    jobs: tuple[Job, ...] = ()  # of the trials, where our launcher takes them as they are
    knobs: Knobs | None = None  # of our launcher, if it is the one
    search: Any = None  # a `runner.door.search.Planned`, where Optuna picks the trials


def plan(conf: Conf, parts: Parts, given: Sequence[Given]) -> Sweep:
    """Return the sweep that a command line asks for; raises ConfigError if any of its trials is wrong."""
    for each in given:
        if each.key in ("name", "hydra.run.dir"):
            other = "sweep" if each.key == "name" else "hydra.sweep.dir"
            raise ConfigError(f"{each.key}: belongs to one run; for a sweep set {other}")
    basic = str(parts.hydra.sweeper.get("_target_")).endswith(".BasicSweeper")
    knobs = launcher_knobs(parts)
    if parts.hydra.sweeper.get("_target_") == SEARCH:
        return searching(conf, parts, given, knobs)
    space = Space([spread(conf, each) for each in given], searched(conf, parts), basic)
    checked_trials = check_trials(conf, space)
    first = next(iter(checked_trials.values()))
    folder = Path(space.of_hydra("hydra.sweep.dir") or default_folder(conf, first.config, space))
    words, outputs = tuple(words_for_hydra(conf, space, folder)), Path(first.config["outputs"])
    if not basic or space.of_hydra("hydra.sweep.subdir") is not None:
        return Sweep(folder, outputs, words, (), knobs=knobs)
    jobs = tuple(trial_job(each.config, each.words, folder / name) for name, each in checked_trials.items())
    return Sweep(folder, outputs, words, tuple(job.folder_name for job in jobs), jobs if knobs else (), knobs)


def searching(conf: Conf, parts: Parts, given: Sequence[Given], knobs: Knobs | None) -> Sweep:
    """Return a sweep whose trials a search picks."""
    from runner.door.search import plan_search

    asked = next((each.value for each in given if each.key == "hydra.sweep.dir"), None)

    def place(config: dict[str, Any], wished: list[Given]) -> Path:
        return Path(asked or default_folder(conf, config, Space([], wished, False)))

    folder, planned = plan_search(conf, parts, given, place)
    words = [each.word for each in given if (each.of_hydra or chooses(conf, each)) and not each.swept]
    words = [word for word in words if not word.startswith(("hydra.mode=", "hydra.sweep."))]
    outputs = Path(planned.like.config["outputs"])
    return Sweep(folder, outputs, (*words, f"hydra.sweep.dir={quoted(folder)}"), (), knobs=knobs, search=planned)


def launcher_knobs(parts: Parts) -> Knobs | None:
    """Return the settings of our launcher, None if another one was chosen."""
    values = plain(parts.hydra.launcher)
    return read_knobs(values) if values.pop("_target_", None) == LAUNCHER else None


def default_folder(conf: Conf, config: dict[str, Any], space: Space) -> Path:
    """Return the folder of a sweep, the same for every sweep over the same keys with the same fixed values."""
    fixed = sorted((each.key, each.text) for each in space.axes if not each.swept and is_named(each.key))
    if conf.primary != "config":
        fixed.append(("--config-name", conf.primary))
    name = f"{shortened('+'.join(space.swept)) or 'default'}-{digest([sorted(space.swept), fixed])}"
    return Path(config["outputs"]) / "sweeps" / (config["sweep"] or name)


def words_for_hydra(conf: Conf, space: Space, folder: Path) -> Iterator[str]:
    """Yield the command line that makes Hydra run the trials that were checked.

    Values go in by `++`, which also adds a key to an open mapping; not those that a YAML searches over as well, which
    Hydra's sweeper must recognize.
    """
    searched = {each.key for each in space.searched}
    for each in space.given:
        if each.key not in ("hydra.mode", "hydra.sweep.dir"):
            plainly = each.of_hydra or chooses(conf, each) or each.key in searched
            if each.swept or each.value is not None or not chooses(conf, each):
                yield each.word if plainly else f"++{each.word}"
    yield f"hydra.sweep.dir={quoted(folder)}"
    if space.of_hydra("hydra.sweep.subdir") is None:
        yield f"hydra.sweep.subdir=${{runner_trial:{','.join(space.swept)}}}"
