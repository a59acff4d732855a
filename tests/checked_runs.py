"""Runs of a few steps with the invariants of a new run around them, in a folder of their own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from small_runs import RecordedRows, RunResults, build, config, results_of

from runner.assemble import Experiment
from runner.assemble.invariants import invariants_of
from runner.engine.logs.log import Log
from runner.engine.saving import checkpoint
from runner.engine.train import train


def run_checked(
    choices: Mapping[str, Any], count: int, folder: Path, *, checks: bool = True, experiment: Experiment | None = None
) -> RunResults:
    """Train `count` steps with a validation and a checkpoint after each, as task=train does, and return the results."""
    folder.mkdir(exist_ok=True)
    choices = {**choices, "steps": count}
    made = experiment or build(choices)
    values = dict(choices) if "resume" in choices else config(choices)
    values["invariants"] = "auto" if checks else "never"
    rows, learner, recipe = RecordedRows(), made.learner, made.recipe
    with closing(Log(screens=[rows])) as log:
        recipe, *others = made.features.parts(recipe, learner, made.batches, made.validation)

        def commit() -> None:
            log.positions()
            saved = {"learner": learner.state_dict(), "log": log.state_dict()}
            kept = {"keep": learner.kept_steps, "earlier": learner.earlier_weights(recipe.cadence.held)}
            checkpoint.save(folder, learner.step, learner.weights(), saved, logs={}, meta={}, **kept)
            learner.snapshots.mark_saved(learner.step)

        around = invariants_of(values, made, resumed=False).around
        recipe, save = around(recipe, learner, log, commit, folder)
        train(recipe, *others, log, save)
    return results_of(made, rows)
