"""A run folder: its config, the weights that it selected (or its newest), and what these know of their data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import numerics, plain_yaml
from runner.assemble import settings_and_device
from runner.assemble.load_data import Loaded, load
from runner.assemble.predictor import DataFacts, Predictor, assemble_predictor, match_average
from runner.engine.saving import checkpoint
from runner.engine.saving.ensemble_file import Manifest
from runner.engine.saving.folder import Result, read_environment, read_result
from runner.engine.state_dict import StateDict
from runner.errors import CheckpointError
from runner.schema import PositiveInt, check
from runner.tasks.job import Config, Job
from runner.tasks.saved_config import MAY_CHANGE, saved_config
from runner.tasks.saved_data import DATA, SavedData, saved_data

# Attempts to read a checkpoint of a run that goes on
_ATTEMPTS = 3
_NO_WEIGHTS = "has no weights (keep=none, or task=clean removed them); train it again with keep=best"
_MAY_CHANGE = ("task", "predict", *MAY_CHANGE)


@dataclass(frozen=True)
class SavedRun:
    """A run that can be used: its config as this command changes it, its weights, and what it says of its data."""

    folder: Path
    config: Config
    result: Result
    path: Path  # of the weights
    weights: StateDict
    meta: dict[str, Any]
    data: SavedData
    data_given: bool  # the command says which data to read
    other_data: bool  # the command chooses another data set
    members: tuple[SavedRun, ...] = ()  # of an ensemble, whose config is that of the first
    manifest: Manifest | None = None  # of an ensemble

    @property
    def step(self) -> int | None:
        """Return the step of the weights; None for an ensemble."""
        return None if self.members else int(self.path.name.partition(".")[0])

    @property
    def facts(self) -> DataFacts | None:
        """Return the facts about the data of the run; None if an older version trained it, which did not note them."""
        entry = read_environment(self.folder).get(DATA)
        shape = _shape_in(entry)
        known = self.data.fingerprint
        if shape is None or known is None or known.classes is None:
            return None
        train = known.parts.get("train")
        reading = entry.get("reading") if isinstance(entry, dict) else None
        return DataFacts(
            shape=shape,
            classes=known.classes,
            counts=train.counts if train else None,
            reading=reading if isinstance(reading, dict) else {},
            batch_size=check("data.batch_size", self.config["data"].get("batch_size", 1), PositiveInt),
        )

    def with_settings(self, **values: Any) -> SavedRun:
        """Return the run with other values of settings, which the members of an ensemble get, too."""
        members = tuple(member.with_settings(**values) for member in self.members)
        return replace(self, config={**self.config, **values}, members=members)


def read_member(
    folder: Path,
    job: Job,
    *,
    key: str,
    weights: str | None = None,
    other: Collection[str] = (),
    more: Collection[str] = (),
) -> SavedRun:
    """Return the run in a folder; its config as the command changes it.

    Args:
        folder: The run folder.
        job: The command.
        key: The setting that names the folder.
        weights: A file of weights in it; None: the one that the run selected, of an unfinished run its newest.
        other: Groups of which the command may choose another option, with all its knobs.
        more: Other keys that the command may change.
    """
    config = saved_config(str(folder), job, key=key, may_change=(*_MAY_CHANGE, *more), other=other)
    result = read_result(folder)
    chosen = weights or result.weights
    if result.status.finished and chosen is None:
        raise CheckpointError(f"{folder}: {_NO_WEIGHTS}")
    path, tensors, meta = _read_weights(folder / chosen) if chosen else _newest(folder)
    accept = config["resume_numerics"] == "new"
    numerics.check_unchanged(config, numerics.version_in(meta, path), path, accept=accept, scores_only=True)
    given = gives(job, "data")
    return SavedRun(
        folder=folder,
        config=config,
        result=result,
        path=path,
        weights=tensors,
        meta=meta,
        data=saved_data(folder, result, meta),
        data_given=given,
        other_data=given and _data_name(folder) != config["data"]["name"],
    )


def gives(job: Job, group: str) -> bool:
    """Return True if a command chooses an option of a group, or one of its knobs."""
    return any(word.lstrip("+").partition("=")[0].partition(".")[0] == group for word in job.overrides)


def _data_name(folder: Path) -> Any:
    """Return the name of the data set on which a run was trained."""
    config = plain_yaml.load(folder / "config.yaml")
    return config["data"].get("name") if isinstance(config["data"], dict) else None


def known_facts(run: SavedRun) -> DataFacts:
    """Return what the model of a run knows of its data; the data are read only if the run does not say it."""
    return run.facts or facts_of(load(run.config), run.data)


def facts_of(loaded: Loaded, saved: SavedData | None = None) -> DataFacts:
    """Return what a model knows of data on which it was trained; the classes as a saved run orders them."""
    data = loaded.data
    classes = (saved and saved.fingerprint and saved.fingerprint.classes) or data.classes
    counts = tuple(data.train.labels.bincount(minlength=len(data.classes)).tolist())
    found = dict(zip(data.classes, counts, strict=True))
    return DataFacts(
        shape=data.shape,
        classes=classes,
        counts=tuple(found.get(name, 0) for name in classes),
        reading=data.reading,
        batch_size=data.batch_size,
    )


def restore_member(run: SavedRun, facts: DataFacts, *, threads: bool) -> Predictor:
    """Return the model of a run with its weights; with `threads` torch computes with as many as in training.

    Raises CheckpointError if the weights are of another model.
    """
    settings, device = settings_and_device(run.config)
    predictor = assemble_predictor(run.config, facts, settings, device, threads=threads)
    match_average(predictor.model, run.weights)
    if wrong := checkpoint.mismatch(predictor.weights(), run.weights):
        raise CheckpointError(f"{run.path} is of another model: {wrong}")
    predictor.load_weights(run.weights)
    return predictor


def _shape_in(entry: Any) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) that environment.json has, a file that a user may have edited; None if it has none."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and n >= 1 for n in shape):
        return None
    return (shape[0], shape[1], shape[2])


def _read_weights(path: Path) -> tuple[Path, StateDict, dict[str, Any]]:
    """Return path, tensors and `meta` of a file of weights."""
    return path, checkpoint.read_weights(path), checkpoint.meta_of(path)


def _newest(folder: Path) -> tuple[Path, StateDict, dict[str, Any]]:
    """Return path, tensors and `meta` of the newest checkpoint of a run that has not selected any yet.

    The run may go on meanwhile, and remove the checkpoints that were listed.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            snapshot = checkpoint.load(folder)
            if snapshot is None:
                raise CheckpointError(f"{folder}: has no checkpoint yet")
            return checkpoint.weights_file(folder, snapshot.step), snapshot.weights, snapshot.meta
        except CheckpointError:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")
