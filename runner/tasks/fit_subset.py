"""task=fit_subset: train on a small sample until it is fitted, in training and in evaluation mode."""

from __future__ import annotations

import json
from typing import Literal

from runner.assemble import assemble
from runner.assemble.load_data import load
from runner.engine.saving.storage import printable, write_atomic
from runner.printing import counted, write_stdout
from runner.protocol.context import without_test
from runner.protocol.outcome import json_values
from runner.protocol.subset import Goal, blind, fit, reachable_accuracy, with_permuted_labels, with_sample
from runner.registry import register
from runner.schema import NonNegative, PositiveInt
from runner.tasks.job import Job
from runner.tasks.run_folder import continued_run_folder

_FIT = "fit.json"


@register("task")
def fit_subset(
    job: Job,
    *,
    examples: PositiveInt,
    loss_below: NonNegative | None,
    control: Literal["none", "zero_input", "shuffled_labels"],
) -> int:
    """Train on a sample of the training examples, each class in its share, until all are right, for `steps` at most.

    Evaluates the same examples after each few passes, in training and in evaluation mode. Leaves `fit.json`. The
    controls must not succeed: all images equal, or all training examples with permuted labels, which are then
    scored on the validation split. `task=overfit` runs this task with several learning rates.
    """
    loaded = without_test(load(job.config))
    if control == "shuffled_labels":
        loaded = with_permuted_labels(loaded, job.config["seed"])
    else:
        loaded = with_sample(loaded, examples)
    experiment = assemble(job.config, loaded=loaded)
    if control == "zero_input":
        blind(experiment)
    bound = reachable_accuracy(experiment.loaded.data.train) if control == "none" else 2.0
    with continued_run_folder(job, experiment) as run:
        found = fit(experiment, Goal(accuracy=bound, loss=loss_below))
        shares = (loaded.data.val.labels.bincount().double() / len(loaded.data.val.labels)).tolist()
        record = {**found, "bound": bound, "examples": len(loaded.data.val.labels), "shares": shares}
        write_atomic(run.folder / _FIT, json.dumps(json_values(record), allow_nan=False).encode() + b"\n")
        run.result.steps = experiment.learner.step
    last = found["curve"][-1]
    outcome = "diverged" if found["diverged"] else "fitted" if found["reached"] else "not fitted"
    write_stdout(
        f"{outcome} after {counted(experiment.learner.step, 'step')}: loss {last['train_loss']:.4g}, accuracy "
        f"{last['train_accuracy']:.4f} in training mode, {last['eval_accuracy']:.4f} in evaluation mode\n"
    )
    write_stdout(f"saved in      {printable(run.folder)}\n")
    return 0
