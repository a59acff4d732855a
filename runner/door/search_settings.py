"""The settings of a search, `hydra.sweeper.*`: sampler, pruner, and how many points, seeds and failures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

from runner.directions import monitor_in
from runner.engine.monitor import Monitor
from runner.errors import ConfigError, unknown
from runner.schema import FolderName, NonNegativeInt, Positive, PositiveInt, Range, Unit, check
from runner.search.pruning import NOT_COMPARABLE
from runner.search.space import Space

SAMPLERS: dict[str, dict[str, Any]] = {
    "grid": {},
    "random": {},
    "qmc": {},
    "tpe": {"n_startup_trials": NonNegativeInt, "n_ei_candidates": PositiveInt},
    "gp": {"n_startup_trials": NonNegativeInt, "deterministic_objective": bool},
    "cmaes": {"n_startup_trials": NonNegativeInt, "sigma0": Positive | None},
}
_RUNGS = {"min_resource": PositiveInt, "reduction_factor": Annotated[int, Range(2)], "bootstrap_count": NonNegativeInt}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {"n_startup_trials": NonNegativeInt, "n_warmup_steps": NonNegativeInt, "interval_steps": PositiveInt},
    "asha": {**_RUNGS, "min_early_stopping_rate": NonNegativeInt},
    "hyperband": {**_RUNGS, "max_resource": PositiveInt | None},
}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The checked settings of a search; conf/hydra/sweeper/optuna.yaml holds the defaults."""

    n_trials: PositiveInt | None
    seeds: PositiveInt
    n_jobs: PositiveInt | None
    direction: Literal["maximize", "minimize"] | None
    storage: str | None
    study_name: FolderName | None
    max_failure_rate: Unit


def check_search_settings(values: dict[str, Any]) -> SearchSettings:
    """Return the checked settings of the sweeper."""
    if values["custom_search_space"] is not None:
        says = "a config must not name code; write conditions as 'optim=adam: {...}' in hydra.sweeper.params"
        raise ConfigError(f"hydra.sweeper.custom_search_space: not supported, {says}")
    if isinstance(values["direction"], list):
        raise ConfigError("hydra.sweeper.direction: got a list, but each name in hydra.sweeper.objectives has its own")
    if not isinstance(values["params"], dict):
        raise ConfigError(f"hydra.sweeper.params: got {values['params']}, must be a mapping {{a: b}}")
    kinds = get_type_hints(SearchSettings, include_extras=True)
    known = [
        *kinds,
        "sampler",
        "pruner",
        "stop",
        "initial",
        "exclude",
        "objectives",
        "scientific",
        "params",
        "custom_search_space",
        "_target_",
    ]
    for name in values:
        if name not in known:
            raise unknown(f"hydra.sweeper.{name}", "key", str(name), known[:-1])
    return SearchSettings(
        **{
            each.name: check(f"hydra.sweeper.{each.name}", values[each.name], kinds[each.name])
            for each in fields(SearchSettings)
        }
    )


def check_part(values: Any, what: str, known: dict[str, dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
    """Return a sampler's or pruner's name and knobs, checked."""
    where = f"hydra.sweeper.{what}"
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: got {values}; choose one with hydra/sweeper/{what}={values}")
    name = str(values.get("name"))
    if name not in known:
        raise unknown(f"{where}.name", what, name, known)
    kinds = {**more, **known[name]}
    if wrong := (set(values) ^ {"name", *kinds}):
        raise ConfigError(
            f"{where}.{min(map(str, wrong))}: not supported with '{name}'; choose it with hydra/sweeper/{what}={name}"
        )
    return {"name": name, **{key: check(f"{where}.{key}", values[key], kind) for key, kind in kinds.items()}}


def check_fits(space: Space, sampler: dict[str, Any], pruner: dict[str, Any], settings: SearchSettings) -> None:
    """Raise ConfigError if the sampler or the pruner does not support the space."""
    name = sampler["name"]
    if name == "grid":
        space.grid()
    if name in ("gp", "cmaes") and (axis := space.conditional) is not None:
        raise ConfigError(
            f"{axis.key}: applies to some points only, which {name} does not support; use tpe, random, qmc or grid"
        )
    if name == "cmaes" and (chosen := [axis.key for axis in space.axes if axis.kind == "choice"]):
        raise ConfigError(f"{chosen[0]}: got choices, but cmaes searches numbers only; use tpe")
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigError("hydra/sweeper/sampler: cmaes is not installed: pip install cmaes")
    for axis in space.axes:
        if axis.key in NOT_COMPARABLE and pruner["name"] != "none":
            raise ConfigError(
                f"{axis.key}: is searched, so runs cannot be compared before their end; use hydra/sweeper/pruner=none"
            )
        if axis.key == "seed" and settings.seeds > 1:
            raise ConfigError("seed: is searched, but hydra.sweeper.seeds averages over it")
        if axis.key == "monitor":
            raise ConfigError("monitor: cannot be searched, it is the score")


def monitor_of(given: str | None, config: dict[str, Any], space: Space) -> Monitor:
    """Return the score of a search.

    Raises ConfigError if the `given` direction is not its own, if the space changes its meaning, or if no task logs it.
    """
    monitor = monitor_in(config)
    for axis in space.axes:
        if monitor.changes_with(axis.key):
            raise ConfigError(
                f"{axis.key}: is searched, so {monitor.tag} differs in meaning; use monitor=val/accuracy or val/nll"
            )
    if given not in (None, monitor.direction):
        expected = f"with monitor={monitor.tag} it is {monitor.direction}"
        raise ConfigError(f"hydra.sweeper.direction: got '{given}', but {expected}")
    if config["task"]["name"] != "train":
        raise ConfigError(
            f"task: got '{config['task']['name']}', but only task=train logs {monitor.tag}, the score of a search"
        )
    return monitor
