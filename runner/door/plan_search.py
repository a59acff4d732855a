"""Plan a search: check its settings, and its space at both ends of each axis and at each choice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.door.check_ends import check_ends, check_point, with_point
from runner.door.compose import Parts, hydra_opened, to_plain
from runner.door.exclusions import check_exclusions
from runner.door.initial_points import check_initial
from runner.door.jobs import trial_job
from runner.door.naming import trial_name
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride, parse_override
from runner.door.refine_settings import RefineKnobs, check_refine_knobs, check_refines, widest
from runner.door.search_objectives import check_objectives
from runner.door.search_settings import (
    PRUNERS,
    SAMPLERS,
    SearchSettings,
    check_fits,
    check_part,
    check_search_settings,
    monitor_of,
)
from runner.door.search_space import make_space, search_overrides
from runner.door.subfolders import check_differs, given_subdir, point_in_subfolder
from runner.door.variants import Composer
from runner.errors import ConfigError, RunnerError, StorageError
from runner.hashes import digest
from runner.keys import experiment
from runner.schema import NonNegativeInt
from runner.search.records import Search, StudyTrial
from runner.search.refine import RefineSettings
from runner.search.samplers import first_allowed, random_points
from runner.search.space import Axis, Point, Space
from runner.search.storage import KEY as STORAGE
from runner.search.storage import check_optuna_installed, check_storage, is_database, open_storage
from runner.search.storage_lock import locked
from runner.search.study import Study
from runner.tasks.job import Job

# Points whose runs are looked at to estimate the disk that all will take
_EXAMPLES = 8


@dataclass(frozen=True)
class PlannedSearch:
    """A checked search, and the function that makes the run of a point."""

    search: Search
    like: Job  # one of its runs
    run: Callable[[Point, int], Job]  # (point, seed)

    def jobs(self, study: Study) -> Callable[[StudyTrial, int], Job]:
        """Return the function that makes the runs of a study; the run of the first seed reports to it."""

        def job(asked: StudyTrial, seed: int) -> Job:
            first = seed == self.search.seeds[0]
            return replace(self.run(asked.point, seed), search=study.pruning_channel(asked) if first else None)

        return job

    def examples(self) -> list[Job]:
        """Return runs of some points: one where the points differ in rates only, else those of random points."""
        if all(axis.kind == "float" for axis in self.search.space.axes):
            return [self.run(_a_point(self.search), self.search.seeds[0])]
        allowed = (point for point in random_points(self.search.space, 0) if not self.search.excludes(point))
        points = itertools.islice(allowed, _EXAMPLES)
        return [self.run(point, self.search.seeds[0]) for point in points]


def plan_search(
    conf: Conf,
    parts: Parts,
    given: Sequence[ParsedOverride],
    choose_folder: Callable[[dict[str, Any], list[ParsedOverride]], Path],
) -> tuple[Path, PlannedSearch]:
    """Return the folder, which `choose_folder` gives, and the checked search."""
    check_optuna_installed()
    values = to_plain(parts.hydra.sweeper)
    knobs = check_refine_knobs(values) if str(parts.choices.get("hydra/sweeper")) == "refine" else None
    settings, sampler, pruner = knobs.as_parts if knobs else _check_settings(values)
    _check_storage(settings.storage)
    overrides = search_overrides(conf, values["params"], given)
    space, fixed = make_space(conf, parts, overrides)
    check_fits(space, sampler, pruner, settings)
    composer = Composer(conf, [each for each in given if each.sets_hydra])
    exclusions = check_exclusions(values["exclude"], space)
    if knobs and exclusions:
        # The rounds depend on it, so it is another study
        sampler = {**sampler, "exclude": values["exclude"]}
    config = check_ends(conf, composer, space, fixed, exclusions)
    search = _make_search(
        settings, sampler, pruner, config, space, check_initial(values["initial"], space, sampler["name"])
    )
    search = replace(search, exclusions=exclusions)
    if not knobs:
        search = _with_objectives(search, values["objectives"], config, settings)
    else:
        search = _in_rounds(search, knobs, _widest(composer, space, fixed, extend=knobs.extend))
    if subdir := given_subdir(given):
        check_differs(subdir, space, 2 if knobs else settings.seeds)
    folder = choose_folder(config, [each.given for each in overrides])

    trials = search.most_points * len(search.seeds)
    own_seed = settings.seeds > 1 or knobs is not None
    run = _Runs(conf, composer, search.space, fixed, folder, subdir, own_seed=own_seed, trials=trials)
    if subdir:
        # A name that is too long, for example
        run(_a_point(search), search.seeds[0])
    return folder, PlannedSearch(search, trial_job(config, (), folder / "any"), run)


def _a_point(search: Search) -> Point:
    """Return a point of a search: the first choices and lower ends, another one if that is excluded."""
    first = search.space.first_point()
    return first_allowed(search.space, search.exclusions) if search.excludes(first) else first


@dataclass(frozen=True)
class _Runs:
    """Makes the run of a point and a seed."""

    conf: Conf
    composer: Composer
    space: Space
    fixed: Sequence[ParsedOverride]
    folder: Path  # of the sweep
    subdir: ParsedOverride | None
    own_seed: bool  # each point runs with several seeds
    trials: float  # at most

    def __call__(self, point: Point, seed: int) -> Job:
        """Return the job."""
        own = [parse_override(f"{key}={text}") for key, text in self.space.words(point)]
        own += [parse_override(f"seed={seed}")] if self.own_seed else []
        with hydra_opened(self.conf):
            trial = self.composer.trial(with_point(self.fixed, own))
        given = [(each.key, each.value) for each in own]
        folder = self.folder / trial_name(given, trial.config)
        job = trial_job(trial.config, trial.words, folder, self.conf.folders, given=given, trials=self.trials)
        job = replace(job, allow_unused=self.conf.allow_unused)
        return point_in_subfolder(self.subdir, self.folder, job, trial) if self.subdir else job


def _make_search(
    settings: SearchSettings,
    sampler: dict[str, Any],
    pruner: dict[str, Any],
    config: dict[str, Any],
    space: Space,
    initial: tuple[Point, ...],
) -> Search:
    """Return the search with these settings; `config` is the one of a point."""
    return Search(
        space=space,
        sampler=sampler,
        pruner=pruner,
        monitor=monitor_of(settings.direction, config, space),
        storage=settings.storage,
        study_name=settings.study_name or _study_name(space, sampler, settings.seeds),
        n_trials=settings.n_trials,
        n_jobs=settings.n_jobs,
        seeds=tuple(range(config["seed"], config["seed"] + settings.seeds)),
        max_failure_rate=settings.max_failure_rate,
        initial=initial,
        settings=experiment(config),
    )


def _with_objectives(search: Search, given: Any, config: dict[str, Any], settings: SearchSettings) -> Search:
    """Return a search with several objectives, if some are given; it has a study of its own."""
    sampler, pruner = search.sampler["name"], search.pruner["name"]
    others = check_objectives(given, config, search.monitor, sampler, pruner)
    if not others or settings.study_name:
        return replace(search, objectives=others)
    name = f"{sampler}-{digest([search.study_name, others])}"
    return replace(search, objectives=others, study_name=name)


def _widest(composer: Composer, space: Space, fixed: Sequence[ParsedOverride], *, extend: bool) -> Space:
    """Return the ranges that the rounds of a search may reach."""
    check_refines(space)
    first = {axis.name: axis.end_texts()[0] for axis in space.axes}

    def accepts(axis: Axis, text: str) -> bool:
        option = {axis.when[0]: axis.when[1][0]} if axis.when else {}
        try:
            check_point(composer, space, fixed, axis, {**first, **option, axis.name: text})
        except RunnerError:
            return False
        return True

    return widest(space, accepts) if extend else space


def _in_rounds(search: Search, knobs: RefineKnobs, space: Space) -> Search:
    """Return a search in rounds, which begin in its ranges and may reach those of `space`."""
    rounds = RefineSettings(
        start=search.space,
        trainings=knobs.n_trials,
        points=knobs.points,
        seeds=knobs.seeds,
        confirm_seeds=knobs.confirm_seeds,
        first_seed=search.seeds[0],
        sampler_seed=knobs.sampler_seed,
        sign=search.monitor.sign,
        initial=tuple(each for each in search.initial if not search.excludes(each)),
        exclusions=search.exclusions,
    )
    return replace(search, space=space, refine=rounds)


def _check_settings(values: dict[str, Any]) -> tuple[SearchSettings, dict[str, Any], dict[str, Any]]:
    """Return the checked settings of a search, of its sampler and of its pruner."""
    settings = check_search_settings(values)
    sampler = check_part(values["sampler"], "sampler", SAMPLERS, {"seed": NonNegativeInt})
    pruner = check_part(values["pruner"], "pruner", PRUNERS, {})
    return settings, sampler, pruner


def _check_storage(url: str | None) -> None:
    """Raise ConfigError if a shared storage cannot be opened."""
    if url is None:
        return
    check_storage(url)
    try:
        # A journal has no tables to create
        with locked(url if is_database(url) else None):
            open_storage(url, Path())
    except StorageError as error:
        raise ConfigError(f"{STORAGE}: {str(error).removeprefix(f'{STORAGE}: ')}") from error


def _study_name(space: Space, sampler: dict[str, Any], seeds: int) -> str:
    """Return a name that changes with the space, the sampler and the number of seeds."""
    return f"{sampler['name']}-{digest([list(map(vars, space.axes)), sampler, seeds])}"
