"""The check of settings that takes the steps of a run, or its model: what would do nothing in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.assemble import Experiment
from runner.assemble.processes import check_needed
from runner.components.optim.groups import unmatched_kinds
from runner.tasks.job import Job
from runner.unused_settings import RunLength, lines_about_limits, unused_settings, values_of_user


def check_settings(job: Job, experiment: Experiment, *, saved: bool) -> list[str]:
    """Return lines about settings that do nothing in a run.

    A value that is wrong for a run of this length raises ConfigError, but not if it is that of a `saved` run: then it
    gets a line.
    """
    recipe, steps = job.recipe, experiment.recipe
    length = RunLength(
        total_steps=steps.total_steps, steps_per_epoch=steps.steps_per_epoch, batch=experiment.batches.batch
    )
    unused = list(unused_settings(job.config, length, recipe))
    if not saved:
        check_needed(job.config, values_of_user(job.config, recipe), experiment.world)
    if unused and not (saved or job.allow_unused):
        raise unused[0]
    lines = [
        *lines_about_limits(job.config, length, steps.validate_every, recipe),
        *_missing_kinds(job.config, experiment, recipe),
    ]
    return [*(f"{error} (kept, as this run was started with it)" for error in unused), *lines]


def _missing_kinds(config: Mapping[str, Any], experiment: Experiment, recipe: str | None) -> Iterator[str]:
    """Yield a line for given kinds of parameters that the model does not have."""
    kinds = values_of_user(config, recipe).get("optim.no_decay", [])
    if missing := unmatched_kinds(experiment.learner.model, kinds):
        yield f"optim.no_decay: the model has no parameter of kind {', '.join(missing)}"
