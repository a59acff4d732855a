"""The state of a run from its newest checkpoint that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.engine.learner import Learner
from runner.engine.saving import checkpoint
from runner.engine.saving.checkpoint import Snapshot
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict
from runner.errors import CheckpointError, short_reason
from runner.tasks.old_scores import without_old_losses


def restore(folder: Path, learner: Learner, snapshot: Snapshot, config: Mapping[str, Any]) -> Snapshot:
    """Restore the newest checkpoint that fits this model and return it, with a note for each that does not."""
    snapshot = without_old_losses(snapshot, config, folder)
    try:
        restore_snapshot(learner, snapshot)
        learner.snapshots.load(learner.step, lambda step: _kept_weights(folder, learner, step))
    except CheckpointError as error:
        older = checkpoint.load(folder, before=snapshot.step)
        if older is None:
            raise
        note = f"{error}; going back to step {older.step}"
        return restore(folder, learner, replace(older, notes=[*snapshot.notes, note, *older.notes]), config)
    return snapshot


def _kept_weights(folder: Path, learner: Learner, step: int) -> StateDict:
    """Return the tensors of a snapshot of a run; raises CheckpointError if they are missing or of another model."""
    path = checkpoint.weights_file(folder, step)
    weights = checkpoint.read_weights(path)
    if wrong := checkpoint.mismatch(learner.weights(), weights):
        raise CheckpointError(f"{printable(path)} is of another model: {wrong}")
    return weights


def restore_snapshot(learner: Learner, snapshot: Snapshot) -> None:
    """Restore a checkpoint; raises CheckpointError if it belongs to another model."""
    if wrong := checkpoint.mismatch(learner.weights(), snapshot.weights):
        raise CheckpointError(f"the checkpoint of step {snapshot.step} is of another model: {wrong}")
    try:
        learner.load_weights(snapshot.weights)
        learner.load_state_dict(snapshot.state["learner"], snapshot.weights)
    except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = short_reason(error)
        raise CheckpointError(f"the state of step {snapshot.step} is not of this run: {reason}") from error
    if learner.step != snapshot.step:
        raise CheckpointError(f"the state of step {snapshot.step} says that it is of step {learner.step}")
