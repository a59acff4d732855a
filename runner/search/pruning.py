"""Pruning: a run reports its score after each validation and stops early if the pruner says so."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.durations import dates_until, is_date
from runner.errors import ConfigError
from runner.keys import settings_with
from runner.roles import Aspect
from runner.search.storage import full_url, open_storage, storage_errors

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from runner.engine.contracts import ShouldPrune

# Trials that differ in these keys cannot be compared before they end
NOT_COMPARABLE = (*settings_with(Aspect.BUDGET), *settings_with(Aspect.CADENCE))


def make_pruner(knobs: Mapping[str, Any]) -> BasePruner:
    """Return Optuna's pruner with these settings; its steps are validations."""
    import optuna

    kinds: dict[str, type[BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "asha": optuna.pruners.SuccessiveHalvingPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
    }
    options = {name: "auto" if value is None else value for name, value in knobs.items() if name != "name"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return kinds[knobs["name"]](**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.pruner: {str(error).splitlines()[0]}") from error


def make_should_prune(search: Mapping[str, Any], *, every: int | Fraction, total: int) -> ShouldPrune:
    """Return a function (score, optimizer step) -> True if the run of a search should stop.

    Args:
        search: The trial of the run: `storage`, `study`, `trial`, `pruner`.
        every: Optimizer steps between validations; a fraction is rounded per date.
        total: Optimizer steps of the run; a complete run is never pruned.
    """
    import optuna

    url = full_url(search["storage"])
    storage = open_storage(url, Path())
    knobs = dict(search["pruner"])
    if knobs.get("max_resource", 0) is None:
        knobs["max_resource"] = _validations(total, every)
    with storage_errors(url):
        study = optuna.load_study(study_name=search["study"], storage=storage, pruner=make_pruner(knobs))

    def should_prune(score: float, step: int) -> bool:
        with storage_errors(url):
            storage.set_trial_intermediate_value(search["trial"], _validations(step, every), score)
            # A plain bool instead of numpy's
            return step < total and bool(study.pruner.prune(study, storage.get_trial(search["trial"])))

    return should_prune


def _validations(step: int, every: int | Fraction) -> int:
    """Return the number of validations up to the one after `step`; the last step of a run may be between two dates."""
    return dates_until(step, every) + (not is_date(step, every))
