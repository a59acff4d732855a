"""The run or the ensemble in the folder that `run=` names, read and restored: everything that uses one begins here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from runner import plain_yaml
from runner.assemble.predictor import DataFacts, Predictor
from runner.engine.saving.ensemble_file import Manifest, is_ensemble, member_folder, read_manifest
from runner.engine.saving.folder import ENSEMBLE, read_result
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict
from runner.ensembles.model import combined_predictor
from runner.errors import CheckpointError, ConfigError, escaped
from runner.hashes import content_of, digest
from runner.tasks.job import Job
from runner.tasks.saved_data import saved_data
from runner.tasks.trained.saved_run import SavedRun, gives, known_facts, read_member, restore_member

# Parts of a config that decide how a model computes its predictions
_ARCHITECTURE = ("model", "activation", "norm", "regularizer", "predict", "loss", "precision", "memory_format")


def read_run(job: Job, *, task: str, other: Collection[str] = (), more: Collection[str] = ()) -> SavedRun:
    """Return the run in the folder that `run=` names, or the ensemble.

    Args:
        job: The command, which may change the prediction method and how numbers are computed.
        task: The task that reads the run.
        other: Groups of which the command may choose another option, with all its knobs.
        more: Other keys that the command may change.

    Raises:
        ConfigError, CheckpointError: The folder holds no run, has no weights yet, or its files are damaged.
    """
    if not job.config["run"]:
        raise ConfigError(f"run: got null; expected a run folder: task={task} run=outputs/<name>")
    folder = Path(job.config["run"])
    if is_ensemble(folder, key="run"):
        return _read_ensemble(folder, job, other=other, more=more)
    return read_member(folder, job, key="run", other=other, more=more)


def _read_ensemble(folder: Path, job: Job, *, other: Collection[str], more: Collection[str]) -> SavedRun:
    """Return the ensemble in a folder, with its members; CheckpointError if one is missing or has changed."""
    manifest = read_manifest(folder)
    # A member is named by no setting, and what the command changes is changed in all
    members = [
        read_member(member_folder(folder, each), job, key="run", weights=each.weights, other=other, more=more)
        for each in manifest.members
    ]
    for each, member in zip(manifest.members, members, strict=True):
        if content_of(plain_yaml.load(member.folder / "config.yaml"))["digest"] != each.config:
            where = f"{printable(folder / ENSEMBLE)}: the member '{escaped(each.path)}'"
            raise CheckpointError(f"{where}: its config.yaml has changed; restore it, or make the ensemble again")
    if manifest.predict is not None and not gives(job, "predict"):
        members = [member.with_settings(predict=manifest.predict) for member in members]
    result, first = read_result(folder), members[0]
    return replace(
        first,
        folder=folder,
        result=result,
        path=folder / ENSEMBLE,
        weights=StateDict(),
        data=saved_data(folder, result),
        members=tuple(members),
        manifest=manifest,
    )


def restore_predictor(run: SavedRun, facts: DataFacts, *, threads: bool) -> Predictor:
    """Return the model of a run or an ensemble with its weights.

    With `threads` torch computes with as many as in training.

    Raises CheckpointError if the weights are of another model, or if the members of an ensemble do not fit each other.
    """
    if run.manifest is None:
        return restore_member(run, facts, threads=threads)
    return _restore_ensemble(run, run.manifest, facts, threads=threads)


def _restore_ensemble(run: SavedRun, manifest: Manifest, facts: DataFacts, *, threads: bool) -> Predictor:
    """Return the model of an ensemble with the weights of its members."""
    predictors = [restore_member(member, known_facts(member), threads=threads) for member in run.members]
    weights = [member.weight for member in manifest.members]
    alike = are_alike(run.members)
    return combined_predictor(predictors, weights, manifest.combine, manifest.temperature, facts, alike=alike)


def are_alike(runs: Collection[SavedRun]) -> bool:
    """Return True if some runs have the same architecture, prediction method and precision."""
    return len({digest([run.config[key] for key in _ARCHITECTURE]) for run in runs}) == 1
