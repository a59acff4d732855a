"""Settings of a new run that would do nothing in it, where that takes its number of steps or its model to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.assemble import Experiment
from runner.components.optim.groups import unmatched_kinds
from runner.dead_settings import RunLength, dead_settings, given_values, idle_lines, recipe_in
from runner.tasks.job import Job


def check_settings(job: Job, experiment: Experiment, *, saved: bool) -> list[str]:
    """Return lines about settings that do nothing in a run.

    A value that is wrong for a run of this length raises ConfigError, but not if it is that of a `saved` run: then it
    gets a line.
    """
    recipe, steps = recipe_in(job.overrides), experiment.recipe
    length = RunLength(
        total_steps=steps.total_steps, steps_per_epoch=steps.steps_per_epoch, batch=experiment.batches.batch
    )
    dead = list(dead_settings(job.config, length, recipe))
    if dead and not (saved or job.accepts_dead):
        raise dead[0]
    idle = [*idle_lines(job.config, length, steps.validate_every, recipe), *_idle_kinds(job.config, experiment, recipe)]
    return [*(f"{error} (kept, as this run was started with it)" for error in dead), *idle]


def _idle_kinds(config: Mapping[str, Any], experiment: Experiment, recipe: str | None) -> Iterator[str]:
    """Yield a line for given kinds of parameters that the model does not have."""
    kinds = given_values(config, recipe).get("optim.no_decay", [])
    if missing := unmatched_kinds(experiment.learner.model, kinds):
        yield f"optim.no_decay: the model has no parameter of kind {', '.join(missing)}"
