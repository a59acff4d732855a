"""The data of an earlier run: compare them with those of this command, and find their files from another folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.assemble import Experiment
from runner.assemble.load_data import Loaded, with_classes_of
from runner.engine.equal_examples import EQUAL
from runner.engine.fingerprint import Fingerprint, differences, from_record, named
from runner.engine.saving.folder import Result, read_environment
from runner.engine.saving.storage import write_atomic
from runner.errors import DataError
from runner.identity import data_paths
from runner.tasks.saved_config import PATHS
from runner.user_paths import absolute

# The entry of a manifest's `meta`, and of environment.json
DATA = "data"
_ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class SavedData:
    """The data of an earlier run, as far as it says; an older version of runner said nothing."""

    folder: Path
    id: str | None
    fingerprint: Fingerprint | None

    def changes(self, now: Fingerprint) -> str:
        """Return in words how the data changed since, empty if they did not or if nothing is known."""
        if self.id is None or self.id == now.id:
            return ""
        return (self.fingerprint and differences(self.fingerprint, now)) or "other examples"

    def unknown_line(self) -> str:
        """Return the line that accepts a run without a fingerprint."""
        return f"{self.folder}: has no fingerprint of its data (an older version wrote it); accepted as a run on these"


def saved_data(folder: Path, result: Result, meta: Mapping[str, Any] | None = None) -> SavedData:
    """Return what a run says of its data: in the `meta` of a checkpoint, in environment.json, or in its result."""
    found = from_record((meta or {}).get(DATA))
    listed = result.data[-1] if result.data else None
    if found is None:
        found = from_record(read_environment(folder).get(DATA))
        found = found if found and listed in (None, found.id) else None
    return SavedData(folder, found.id if found else listed, found)


def check_resumed(saved: SavedData, now: Fingerprint, *, accept: bool) -> list[str]:
    """Return a line about the data with which a run goes on, if there is something to say.

    Raises DataError if they have changed and `resume_data=new` is not given.
    """
    changes = saved.changes(now)
    if changes and not accept:
        known = saved.fingerprint and saved.fingerprint.classes
        new = set(now.classes or ()) - set(known or now.classes or ())
        way = "restore them" if new else "restore them, or go on with the new ones: resume_data=new"
        raise DataError(f"{saved.folder}: the data are not those that it was trained on ({changes}); {way}")
    if changes:
        return [f"goes on with other data ({changes})"]
    return [] if saved.id else [saved.unknown_line()]


def resumed_data(saved: SavedData, loaded: Loaded, *, accept: bool) -> tuple[Loaded, list[str]]:
    """Return the data with which a run goes on, labels as its model knows them, and lines about them.

    Raises DataError if they have changed and `resume_data=new` is not given, or have a class that the model lacks.
    """
    lines = check_resumed(saved, loaded.fingerprint, accept=accept)
    classes = saved.fingerprint and saved.fingerprint.classes
    return with_classes_of(loaded, classes) if classes else loaded, lines


def evaluated_data(saved: SavedData, loaded: Loaded, *, moved: bool, accept: bool) -> tuple[Loaded, list[str], bool]:
    """Return the data to score with labels as the model knows them by name, lines about them, and True if its own.

    Data that differ from those of the training and are in another place (`moved`) are not its own.

    Raises DataError for a class that the model or the data lack, and for other data in another place unless the command
    asks for them (`accept`).
    """
    changes = saved.changes(loaded.fingerprint)
    classes = saved.fingerprint and saved.fingerprint.classes
    if classes and set(classes) != set(loaded.data.classes):
        raise DataError(
            f"{saved.folder}: {_class_difference(classes, loaded.data.classes)}; labels are matched by class name"
        )
    if changes and moved and not accept:
        raise DataError(
            f"{saved.folder}: the data lie elsewhere and are not those that it was trained on ({changes}); "
            "to score the run on them: data.root=<folder>"
        )
    other = bool(changes) and moved
    what = "scored on other data than it was trained on" if other else "the data have changed since the training"
    lines = [f"{what} ({changes})"] if changes else []
    lines = lines if saved.id else [saved.unknown_line()]
    return with_classes_of(loaded, classes) if classes else loaded, lines, not other


def _class_difference(model: Collection[str], data: Collection[str]) -> str:
    """Return in words which classes only the model, or only the data have."""
    lost, new = named(set(model) - set(data)), named(set(data) - set(model))
    words = [*([f"the data lack its classes {lost}"] if lost else []), *([f"it does not know {new}"] if new else [])]
    return " and ".join(words)


def data_entries(config: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Return what environment.json says of the data: what was found, its fingerprint, and each path in full."""
    paths, data = _full_paths(config), experiment.loaded.data
    known: dict[str, Any] = {"shape": list(data.shape), "reading": dict(data.reading)}
    if (equal := experiment.loaded.equal_examples) is not None:
        known[EQUAL] = equal.to_record()
    return {
        DATA: {**experiment.data.as_json(), **experiment.fingerprint.to_record(), **known},
        **({PATHS: paths} if paths else {}),
    }


def lies_elsewhere(folder: Path, config: Mapping[str, Any]) -> bool:
    """Return True if the data of a config lie in another place than those of the run in a folder did."""
    saved = read_environment(folder).get(PATHS)
    return isinstance(saved, dict) and saved != _full_paths(config)


def _full_paths(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of the data in full, by their keys."""
    return {key: absolute(path) for key, path, _ in data_paths(config)}


def record_paths(folder: Path, config: Mapping[str, Any]) -> None:
    """Note in environment.json where the data of a resumed run lie now, if that is another place than before."""
    found, paths = read_environment(folder), _full_paths(config)
    if found and paths and found.get(PATHS) != paths:
        write_atomic(folder / _ENVIRONMENT, json.dumps({**found, PATHS: paths}, indent=1).encode())
