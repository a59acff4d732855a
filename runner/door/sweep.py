"""A sweep planned: every trial composed and checked before the first one starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep

from runner.door.compose import Parts, chooses, compose_parts, plain, quoted
from runner.door.jobs import trial_job
from runner.door.leaves import Leaves
from runner.door.naming import UNNAMED, digest, hash8, run_name, shortened
from runner.door.options import RECIPE, Conf
from runner.door.overrides import Given, allow, parse, spread
from runner.errors import ConfigError
from runner.sweeps.knobs import Knobs, read_knobs
from runner.tasks.job import Job

MOST = 10_000  # trials of one sweep
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


@dataclass(frozen=True)
class Space:
    """What a sweep goes over: the command line on top of the YAML's `hydra.sweeper.params`."""

    given: list[Given]  # of the command line, Hydra's own included
    searched: list[Given]  # of the YAML
    basic: bool  # Hydra's own sweeper: every combination

    @property
    def axes(self) -> list[Given]:
        """Return one override per key, in Hydra's order."""
        ours = [each for each in self.given if not each.of_hydra]
        return list({each.key: each for each in [*self.searched, *ours]}.values())

    @property
    def swept(self) -> list[str]:
        """Return the keys that differ between trials."""
        return [each.key for each in self.axes if each.swept]

    def of_hydra(self, key: str) -> Any:
        """Return what the command line sets a key of Hydra's to."""
        return next((each.value for each in self.given if each.key == key), None)


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
    jobs = (trial_job(each.config, each.words, folder / name) for name, each in checked_trials.items())
    return Sweep(folder, outputs, words, tuple(checked_trials), tuple(jobs) if knobs else (), knobs)


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


def searched(conf: Conf, parts: Parts) -> list[Given]:
    """Return the search space that a recipe, or `hydra.sweeper.params`, sets."""
    found = []
    for key, text in (plain(parts.hydra.sweeper.get("params")) or {}).items():
        if not isinstance(text, (str, int, float)):
            raise ConfigError(f"hydra.sweeper.params.{key}: must be text, as in 'optim.lr: 0.1,0.01' in a recipe")
        each = parse(f"{key}={text}")
        if each.key == "plugins":
            raise ConfigError("plugins: may be given on the command line only, a file must not import code")
        allow(conf, each)
        found.append(spread(conf, each))
    return found


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep: its config, checked, and the overrides that make it."""

    config: dict[str, Any]
    words: tuple[str, ...]


class Composer:
    """Makes the configs of trials, composed once for each set of choices; used with Hydra opened."""

    def __init__(self, conf: Conf, hydra: Sequence[Given] = ()) -> None:
        self._conf, self._hydra = conf, list(hydra)
        self._composed: dict[tuple[str, ...], Leaves] = {}

    def trial(self, given: Sequence[Given]) -> Trial:
        """Return the trial that overrides make, checked; raises ConfigError if it is wrong."""
        choices = [each for each in given if chooses(self._conf, each)]
        words = tuple(each.word for each in choices)
        if words not in self._composed:
            self._composed[words] = Leaves(self._conf, compose_parts(self._conf, [*self._hydra, *choices]))
        return Trial(self._composed[words].config(given), tuple(each.word for each in given))


def check_trials(conf: Conf, space: Space) -> dict[str, Trial]:
    """Return the trials by the names of their folders, checked."""
    composer = Composer(conf, [each for each in space.given if each.of_hydra])
    found: dict[str, Trial] = {}
    swept = set(space.swept)
    for given in trials(space):
        trial = composer.trial(given)
        name = trial_name([(each.key, each.value) for each in given if each.key in swept or not swept], trial.config)
        if name in found and space.basic:
            raise ConfigError(f"{name.rpartition('-')[0]}: two trials of this sweep are the same")
        found[name] = trial
    return found


def trials(space: Space) -> Iterator[list[Given]]:
    """Yield the overrides of every trial, or of each end and choice where a sweeper picks the trials."""
    written = [texts(each, basic=space.basic) for each in space.axes]
    count = math.prod(map(len, written)) if space.basic else sum(map(len, written))
    if count > MOST:
        raise ConfigError(f"{space.swept[0]}: the sweep has {count} trials or more, must be at most {MOST}")
    columns = [
        [parse(f"{each.key}={text}") for text in column] for each, column in zip(space.axes, written, strict=True)
    ]
    for each in itertools.chain(*columns):
        if each.value is None and each.key == RECIPE and RECIPE in space.swept:
            raise ConfigError(
                f"{RECIPE}: got null in a sweep, but Hydra composes each trial with a recipe or all without"
            )
    if space.basic:
        yield from map(list, itertools.product(*columns))
    else:
        yield from one_by_one(columns)


def one_by_one(columns: list[list[Given]]) -> Iterator[list[Given]]:
    """Yield each value once, the other axes at their first."""
    first = [column[0] for column in columns]
    yield first
    for index, column in enumerate(columns):
        for each in column[1:]:
            yield [*first[:index], each, *first[index + 1 :]]


def texts(each: Given, *, basic: bool) -> list[str]:
    """Return the values of an override: one, those of a sweep, or the ends of an interval."""
    if not each.swept:
        return [each.text]
    if isinstance(each.value, IntervalSweep):
        if basic:
            raise ConfigError(
                f"{each.key}: got {each.text}, but Hydra's own sweeper tries listed values only; "
                f"list them ({each.key}=0.1,0.01) or choose a sweeper that searches (hydra/sweeper=...)"
            )
        return [str(each.value.start), str(each.value.end)]
    try:
        found = list(itertools.islice(each.parsed.sweep_string_iterator(), MOST + 1))
    except (ValueError, OverflowError) as error:  # of a range
        raise ConfigError(f"{each.key}: got {each.text}, which is no range ({error})") from error
    if not found:
        raise ConfigError(f"{each.key}: got {each.text}, which has no values")
    return found


def trial_name(given: Sequence[tuple[str, Any]], config: dict[str, Any]) -> str:
    """Return the folder name of a trial below its sweep: what differs, and the hash of its config."""
    return f"{run_name(given, unnamed=())}-{hash8(config)}"


def default_folder(conf: Conf, config: dict[str, Any], space: Space) -> Path:
    """Return the folder of a sweep, the same for every sweep over the same keys with the same fixed values."""
    fixed = sorted((each.key, each.text) for each in space.axes if not each.swept and each.key not in UNNAMED)
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
