"""The function that saves a checkpoint of a run in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from runner import numerics
from runner.assemble import Experiment
from runner.engine.logs.log import Log
from runner.engine.saving import checkpoint
from runner.tasks.saved_data import DATA


def make_commit(folder: Path, experiment: Experiment, log: Log) -> Callable[[], None]:
    """Return a function that saves a checkpoint; the best step's and those of snapshots are never removed."""
    learner, data, cadence = experiment.learner, experiment.fingerprint.to_record(), experiment.recipe.cadence

    def commit() -> None:
        positions = log.positions()
        checkpoint.save(
            folder,
            learner.step,
            learner.weights(),
            {"learner": learner.state_dict(), "log": log.state_dict()},
            logs=positions,
            meta={
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                numerics.META: numerics.current(),
                DATA: data,
            },
            keep=learner.kept_steps,
            earlier=learner.earlier_weights(cadence.held),
        )
        learner.snapshots.mark_saved(learner.step)

    def commit_together() -> None:
        """Save in the main process, and raise its error in all."""

        def save() -> str:
            commit()
            return ""

        experiment.world.from_main(save)
        learner.snapshots.mark_saved(learner.step)

    return commit_together
