"""Plan a sweep: choose its folder, and compose and check every run before the first one starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import user_paths
from runner.door.compose import Parts, to_plain
from runner.door.folders import SWEEP, sweep_folder
from runner.door.grid import Axes, check_trials, swept_axes
from runner.door.jobs import trial_job
from runner.door.naming import WEIGHTS, is_named, sweep_names
from runner.door.options import Conf
from runner.door.overrides import ParsedOverride
from runner.door.subfolders import given_subdir, in_subfolders
from runner.errors import ConfigError, StorageError, unknown
from runner.hashes import digest
from runner.schema import PositiveInt, check
from runner.sweeps.launcher import LauncherSettings, check_launcher_settings
from runner.sweeps.stop_rules import StopRules, check_stop_rules
from runner.tasks.job import Job

if TYPE_CHECKING:
    from runner.door.plan_search import PlannedSearch

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked sweep: the runs of a grid, or a search that picks them."""

    folder: Path
    outputs: Path  # where its notebook is
    jobs: tuple[Job, ...] = ()
    search: PlannedSearch | None = None
    settings: LauncherSettings | None  # of runner's launcher; None: one of Hydra's is chosen
    stop: StopRules = field(default_factory=StopRules)  # rules that end it early
    scientific: tuple[str, ...] = ()  # keys whose settings are compared at its end
    notes: tuple[str, ...] = ()  # on the trials, for the user
    batch: int | None = None  # runs that a launcher of Hydra's begins together; None: all


def plan_sweep(conf: Conf, parts: Parts, given: Sequence[ParsedOverride]) -> Plan:
    """Return the sweep of a command line; raises ConfigError if any of its runs is wrong."""
    for each in given:
        if each.key == "extend" and each.value is not None:
            raise ConfigError("extend: extends a single run; leave out -m, and extend each run by a command of its own")
        if each.key in ("name", "hydra.run.dir"):
            other = "sweep" if each.key == "name" else "hydra.sweep.dir"
            raise ConfigError(f"{each.key}: names a single run; for a sweep set {other}")
    sweeper = parts.hydra.sweeper.get("_target_")
    # runner's search, which Hydra never instantiates
    if sweeper is None:
        return _search(conf, parts, given)
    if sweeper != _BASIC:
        chosen = str(parts.choices.get("hydra/sweeper"))
        raise unknown("hydra/sweeper", "option", chosen, ["basic", "grid", "optuna", "refine"])
    return _grid(conf, parts, given)


def launcher_settings(parts: Parts) -> LauncherSettings | None:
    """Return the settings of runner's launcher, None if one of Hydra's is chosen."""
    values = to_plain(parts.hydra.launcher)
    return None if "_target_" in values else check_launcher_settings(values)


def _grid(conf: Conf, parts: Parts, given: Sequence[ParsedOverride]) -> Plan:
    """Plan every combination of the listed values."""
    settings = launcher_settings(parts)
    axes = swept_axes(conf, parts, list(given))
    trials, notes = check_trials(conf, axes, to_plain(parts.hydra.sweeper))
    first = next(iter(trials.values())).config
    folder = _folder(conf, parts, first, axes)
    jobs = [
        trial_job(trial.config, trial.words, folder / name, conf.folders, given=trial.named, trials=len(trials))
        for name, trial in trials.items()
    ]
    jobs = [replace(job, allow_unused=conf.allow_unused) for job in jobs]
    if subdir := given_subdir(given):
        jobs = in_subfolders(subdir, folder, jobs, trials.values())
    batch, stop = _batch_size(parts, settings), _stop_rules(parts)
    if stop.any and settings is None and batch is None:
        # Else all trials would begin together
        raise ConfigError("hydra.sweeper.stop: requires hydra.sweeper.max_batch_size with a launcher of Hydra")
    outputs, roles = Path(first["outputs"]), _scientific(parts, axes.swept)
    return Plan(
        folder=folder,
        outputs=outputs,
        jobs=tuple(jobs),
        settings=settings,
        stop=stop,
        batch=batch,
        notes=tuple(notes),
        scientific=roles,
    )


def _scientific(parts: Parts, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys whose settings are compared."""
    from runner.search.scientific import check_scientific

    return check_scientific(to_plain(parts.hydra.sweeper.get("scientific")) or [], keys)


def _stop_rules(parts: Parts) -> StopRules:
    """Return the rules that end a sweep early; a sweeper of Hydra has none."""
    return check_stop_rules(to_plain(parts.hydra.sweeper.get("stop")) or {})


def _batch_size(parts: Parts, settings: LauncherSettings | None) -> int | None:
    """Return how many trials a launcher of Hydra starts together at most, None for all."""
    key = "hydra.sweeper.max_batch_size"
    batch: int | None = check(key, parts.hydra.sweeper.get("max_batch_size"), PositiveInt | None)
    if settings and batch is not None:
        raise ConfigError(f"{key}: got {batch}, but it is for launchers of Hydra; set hydra.launcher.workers instead")
    return batch


def _search(conf: Conf, parts: Parts, given: Sequence[ParsedOverride]) -> Plan:
    """Plan a search, whose sampler picks the points."""
    from runner.door.plan_search import plan_search

    settings = launcher_settings(parts)

    def choose_folder(config: dict[str, Any], overrides: list[ParsedOverride]) -> Path:
        return _folder(conf, parts, config, Axes([*overrides, *(each for each in given if each.sets_hydra)], []))

    folder, planned = plan_search(conf, parts, given, choose_folder)
    batch = planned.search.n_jobs or 1
    keys = list(dict.fromkeys(axis.key for axis in planned.search.space.axes))
    return Plan(
        scientific=_scientific(parts, keys),
        folder=folder,
        outputs=Path(planned.like.config["outputs"]),
        search=planned,
        settings=settings,
        stop=_stop_rules(parts),
        batch=batch,
    )


def _folder(conf: Conf, parts: Parts, config: dict[str, Any], axes: Axes) -> Path:
    """Return the folder of a sweep; sweeps over the same keys with the same fixed values share it."""
    for each in axes.given:
        if each.key == SWEEP:
            return sweep_folder(each, config, parts.choices, axes.swept)
    # The same weights in another place are the same sweep
    fixed = sorted(
        (each.key, config["init_sha256"] or each.text if each.key in WEIGHTS else each.text)
        for each in axes.all
        if each.key not in axes.swept and is_named(each.key)
    )
    if conf.primary != "config":
        fixed.append(("--config-name", conf.primary))
    sweeps = Path(config["outputs"]) / "sweeps"
    name, older = sweep_names(axes.swept, digest([sorted(axes.swept), fixed]))
    # A sweep that an older version started goes on in its folder
    name = older if user_paths.is_dir(sweeps / older, error=StorageError) else name
    return sweeps / (config["sweep"] or name)
