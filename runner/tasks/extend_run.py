"""`extend=<run> epochs=60`: a new run that begins with the state of an earlier one, which stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.engine.learner import Learner
from runner.engine.recipe import Recipe
from runner.engine.saving import checkpoint
from runner.engine.saving.checkpoint import Snapshot
from runner.engine.saving.folder import read_result
from runner.engine.saving.held_weights import HeldWeights, StepWeights
from runner.engine.saving.locking import holder
from runner.engine.saving.storage import printable
from runner.errors import CheckpointError, ConfigError, Locked
from runner.hashes import group_hash, hash8
from runner.settings import extended_step
from runner.tasks.job import Job
from runner.tasks.restore import restore_snapshot
from runner.tasks.saved_config import MAY_CHANGE, saved_config
from runner.tasks.saved_data import SavedData, saved_data
from runner.user_paths import real

_KEY = "extend"
# What a longer run may have otherwise, besides what may change on resume
_LENGTH = ("epochs", "steps", "patience")
_OF_NEW_RUN = ("name", "note", "extend_restart", "tracker")
_MOST_NAME = 60
# The entries of a parameter group that follow from the length of a run
_WINDOW = ("active", "pace", "phases")


def extended_job(job: Job) -> Job:
    """Return the job of the run that extends the one that `extend=<folder>` names; any other job stays as it is.

    Raises:
        ConfigError: The folder holds no training run with a checkpoint, or a key is set that may not change.
        Locked: The run is still going on.

    """
    folder = job.config[_KEY]
    if folder is None:
        return job
    config = saved_config(folder, job, key=_KEY, may_change=(*MAY_CHANGE, *_LENGTH, *_OF_NEW_RUN))
    if by := holder(Path(folder)):
        raise Locked(f"{_KEY}: {printable(Path(folder))} is still in use by {by}; extend it when it has ended")
    given = {each.lstrip("+").partition("=")[0] for each in job.overrides}
    if not given & {"epochs", "steps"}:
        raise ConfigError(f"{_KEY}: says no length; expected how long the whole run is, as in epochs=60 or steps=2000")
    newest = checkpoint.load(Path(folder))
    if newest is None:
        raise ConfigError(
            f"{_KEY}: {printable(Path(folder))} has no checkpoint {_what_instead(folder, config['keep'])}"
        )
    old = saved_config(folder, replace(job, overrides=()), key=_KEY, may_change=())
    config |= {
        **({"steps": None} if "epochs" in given else {}),
        **{key: job.config[key] for key in (_KEY, *_OF_NEW_RUN)},
        # The seed is the same: extended seeds of one configuration are repetitions, too
        "extended_from": f"{group_hash(old)}@{newest.step}",
    }
    name = job.config["name"] or f"{real(folder).name[:_MOST_NAME]}-{job.folder_name}"
    return replace(job, config=config, folder_name=name, hash8=hash8(config), group_hash=group_hash(config))


def _what_instead(folder: str, keep: str) -> str:
    """Return why a run has no checkpoint from which it could go on, and what is possible."""
    result = read_result(Path(folder))
    if not result.status.finished:
        return "yet; resume it, or start a new run"
    weights = f"init_from={printable(Path(folder))} starts from its weights" if result.weights else "start a new run"
    return f"to go on from, because of keep={keep}; {weights}"


@dataclass(frozen=True)
class Origin:
    """The run that is extended, as it was at the step from which the new run goes on."""

    folder: Path
    snapshot: Snapshot
    best: StepWeights | None  # the weights of the best validation, if that is an earlier one
    saved: SavedData

    def start(self, learner: Learner, recipe: Recipe, config: dict[str, Any]) -> list[str]:
        """Give a learner the state of this run, with the schedule of the new length; return summary lines.

        Raises:
            ConfigError: The new run would make no step, or has averages that depend on its length.
            CheckpointError: The checkpoint is of another model.

        """
        step, total = self.snapshot.step, recipe.total_steps
        if total <= step:
            raise ConfigError(
                f"{_KEY}: {printable(self.folder)} has made {step} steps, and the new run has {total} in all; "
                "expected more: epochs and steps count from the old run's beginning"
            )
        _check_average(config)
        fresh: list[dict[str, Any]] = [
            {key: group[key] for key in _WINDOW if key in group} for group in _groups(learner)
        ]
        schedule = learner.schedule.state_dict()
        restore_snapshot(learner, self.snapshot)
        before = _groups(learner)[0]["lr"]
        for group, window in zip(_groups(learner), fresh, strict=True):
            for key in _WINDOW:
                group.pop(key, None)
            group.update(window)
        restarts = config["extend_restart"]
        if restarts:
            learner.schedule.load_state_dict(schedule)
        learner.patience.pruned = False
        _check_patience(learner)
        after = learner.rate(_groups(learner)[0], step)
        how = f"starts anew over {total - step} steps" if restarts else f"is that of {total} steps"
        return [
            f"extends {printable(self.folder)} after step {step} of {total}",
            f"learning rate {before:.4g} in its last step, {after:.4g} in the next: the schedule {how}",
        ]

    @contextmanager
    def lend_best(self, held: HeldWeights) -> Iterator[None]:
        """Let a checkpoint that is saved in the body have the best weights of this run: the new run may select them."""
        if self.best is not None:
            held.copy(self.best.weights, self.best.step)
        yield
        held.clear()

    @property
    def log_state(self) -> dict[str, Any]:
        """Return what the derived curves, such as the best score so far, go on from; the files are new."""
        return {"derived": self.snapshot.state.get("log", {}).get("derived", {}), "owed": {}, "held": {}}


def _groups(learner: Learner) -> list[dict[str, Any]]:
    return learner.optimizer.param_groups


def _check_average(config: dict[str, Any]) -> None:
    """Raise ConfigError for an average whose blocks or dates are others in a run of another length."""
    average = config["average"]
    if average["name"] == "snapshots":
        raise ConfigError(
            f"{_KEY}: the dates of average=snapshots depend on the run's length; start a new run, from these weights "
            f"with init_from={printable(Path(config[_KEY]))}"
        )
    if average["name"] == "polyak" and average["blocks"] > 1 and str(average["last"]).endswith("%"):
        raise ConfigError(
            f"{_KEY}: the blocks of average=polyak with last={average['last']} depend on the run's length; "
            "a run can be extended that has average.last in steps or epochs"
        )


def _check_patience(learner: Learner) -> None:
    """Raise ConfigError if early stopping would end the run at once."""
    patience = learner.patience
    if patience.should_stop:
        raise ConfigError(
            f"patience: got {patience.limit}, and the run to extend waited {patience.waited} validations for a better "
            f"score; expected more, or patience=null"
        )


def origin_of(config: dict[str, Any]) -> Origin | None:
    """Return the run that a run extends, None if it extends none.

    Raises CheckpointError if its checkpoint is no longer there: a run that has one of its own does not need it.
    """
    step = extended_step(config)
    if step is None:
        return None
    folder = Path(config[_KEY])
    snapshot = checkpoint.load(folder, step=step)
    if snapshot is None:
        raise CheckpointError(f"{_KEY}: {printable(folder)} has no checkpoint of step {step} any more")
    best = int(_best_of(snapshot).get("step", 0))
    is_earlier = 0 < best < step
    earlier = StepWeights(best, checkpoint.read_weights(checkpoint.weights_file(folder, best))) if is_earlier else None
    return Origin(folder, snapshot, earlier, saved_data(folder, read_result(folder), snapshot.meta))


def _best_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the best scores in a checkpoint, empty before the first validation or where it is malformed."""
    try:
        found = snapshot.state["learner"]["patience"]["best"]
    except (KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
