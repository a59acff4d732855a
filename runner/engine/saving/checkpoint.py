"""Checkpoints: written so that a crash at any moment leaves a valid one, read so that a damaged one is never used.

In `<run>/checkpoints/` a step has `<step>.weights.safetensors` (what evaluation loads), `<step>.state.safetensors` and,
last, `<step>.json`, which commits it. There is no pickle and no pointer: the newest checkpoint is the newest whose
checksums hold.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from runner.engine.saving import manifest, storage, tensor_file
from runner.engine.saving.manifest import DATA_NAME, FOLDER, Manifest, NewerFormat, name_of
from runner.engine.saving.rotation import older, rotate, steps_in, tidied, unused_stem
from runner.engine.saving.state import flatten, restore
from runner.errors import CheckpointError, StorageError

# Number of the newest checkpoints to keep, besides those asked for.
_NEWEST = 2
# Differing tensors that one line names at most.
_MOST_NAMES = 3


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint as read: `logs` are bytes per log file, `notes` say which newer ones were damaged."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    logs: dict[str, int]
    meta: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def save(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    state: dict[str, Any],
    *,
    logs: Mapping[str, int],
    meta: Mapping[str, Any],
    keep: Collection[int],
    newest: int = _NEWEST,
) -> Path:
    """Write the checkpoint of a step into a run folder and return the path of its weights.

    Once it is read back whole, all others go but the `newest` (at least 1, this one among them) and the steps in
    `keep`; those of later steps too, which a run that went back to an older one has left. Call it with the run's lock
    held. Raises StorageError; a checkpoint that was valid before is then still there.
    """
    place = _opened(folder)
    names = tidied(place)
    stem = unused_stem(names, step)
    tensors, tree = flatten(state, weights)
    files = (
        tensor_file.write(place / f"{stem}.weights.safetensors", weights),
        tensor_file.write(place / f"{stem}.state.safetensors", tensors),
    )
    with storage.refusing(place):
        storage.disk.fsync_folder(place)  # both names, before the one that lists them
    commit = manifest.encode(Manifest(step, *files, logs=dict(logs), tree=tree, meta=dict(meta)))
    seal = storage.write_atomic(place / name_of(step), commit)
    _verify(place, {name_of(step): seal, **{file.name: file.sha256 for file in files}})
    rotate(place, names, step, keep, newest)
    return place / files[0].name


def finish(folder: Path, step: int, *, keep: Collection[int], newest: int = _NEWEST) -> None:
    """Remove the older checkpoints that the save of a step had yet to remove when it was killed."""
    place = folder / FOLDER
    rotate(place, older(storage.names(place), step), step, keep, newest)


def _opened(folder: Path) -> Path:
    """Return the folder of a run's checkpoints, made if it is not there."""
    place = folder / FOLDER
    with storage.refusing(place):
        if not place.is_dir() or place.is_symlink():
            storage.make_folder(place)
    return place


def _verify(place: Path, digests: Mapping[str, str]) -> None:
    """Read the files of a new checkpoint back; StorageError if they are not what was written."""
    for name, digest in digests.items():
        with storage.refusing(place / name):
            if storage.sha256_of(place / name) != digest:
                raise StorageError(f"{storage.shown(place / name)}: what is read back is not what was written")


def load(folder: Path, *, step: int | None = None, before: int | None = None) -> Snapshot | None:
    """Return the newest valid checkpoint of a run folder (or that of `step`, or one `before` a step), None without any.

    Writes nothing. Newer ones that are damaged are named in `notes`, a line each. Raises CheckpointError if there are
    some and none is valid, or if the newest whole one is of a later format.
    """
    place = folder / FOLDER
    with storage.refusing(place):
        if not os.path.lexists(place):
            return None
        if place.is_symlink() or not place.is_dir():
            raise CheckpointError(f"{storage.shown(place)}: is not a folder")
    steps = steps_in(storage.names(place))
    if step is not None:
        if step not in steps:
            raise CheckpointError(f"{storage.shown(place)}: no checkpoint of step {step} (there are: {steps})")
        steps = [step]
    steps = [each for each in steps if before is None or each < before]
    return _newest_valid(place, steps)


def _newest_valid(place: Path, steps: list[int]) -> Snapshot | None:
    """Return the newest of some checkpoints that holds what its manifest says."""
    rejected: list[str] = []
    for step in reversed(steps):
        try:
            snapshot = _read(place, step)
        except NewerFormat as error:
            raise CheckpointError(f"{storage.shown(place)}/{error}") from error
        except CheckpointError as error:
            rejected.append(str(error))
        else:
            where = storage.shown(place)
            notes = [f"checkpoint {where}/{reason}; going back to {name_of(step)}" for reason in rejected]
            return replace(snapshot, notes=notes)
    if rejected:
        raise CheckpointError(f"{storage.shown(place)}: no valid checkpoint among {len(rejected)}; {rejected[0]}")
    return None


def _read(place: Path, step: int) -> Snapshot:
    """Return the checkpoint of a step, every byte of it verified."""
    found = manifest.read(place, step)
    weights = tensor_file.read(place, found.weights)
    tensors = tensor_file.read(place, found.state)
    try:
        state = restore(found.tree, tensors, weights)
    except ValueError as error:
        raise CheckpointError(f"{name_of(step)}: {error}") from error
    if type(state) is not dict:
        raise CheckpointError(f"{name_of(step)}: the state is no mapping")
    return Snapshot(step, weights, state, found.logs, found.meta)


def weights_file(folder: Path, step: int) -> Path:
    """Return the path of the weights of a step; CheckpointError if it has no readable manifest."""
    place = folder / FOLDER
    try:
        return place / manifest.read(place, step).weights.name
    except CheckpointError as error:
        raise CheckpointError(f"{storage.shown(place)}/{error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file, verified against its manifest if that lies beside it (else a lone copy)."""
    try:
        if found := _manifest_beside(path):
            files = {file.name: file for file in found.files}
            if path.name not in files:
                raise CheckpointError(f"{path.name}: is not of the checkpoint that {name_of(found.step)} commits")
            return tensor_file.read(path.parent, files[path.name])
        return tensor_file.parse(tensor_file.read_bytes(path), path.name)
    except CheckpointError as error:
        raise CheckpointError(f"{storage.shown(path.parent)}/{error}") from error


def meta_of(path: Path) -> dict[str, Any]:
    """Return the `meta` of the checkpoint that a weights file is of; empty for a lone copy."""
    try:
        found = _manifest_beside(path)
    except CheckpointError as error:
        raise CheckpointError(f"{storage.shown(path.parent)}/{error}") from error
    return found.meta if found else {}


def _manifest_beside(path: Path) -> Manifest | None:
    """Return the manifest that lies beside a data file, None if there is none."""
    match = DATA_NAME.fullmatch(path.name)
    if match is None or not os.path.lexists(path.with_name(f"{match['step']}.json")):
        return None
    return manifest.read(path.parent, int(match["step"]))


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Return the first differences between the tensors a model expects and those found, in one line, or None."""
    names = [*expected, *(name for name in found if name not in expected)]
    differing = [name for name in names if _form(expected, name) != _form(found, name)]
    if not differing:
        return None
    parts = [
        f"{_printable(n)}: expected {_form(expected, n)}, found {_form(found, n)}" for n in differing[:_MOST_NAMES]
    ]
    more = f"; and {len(differing) - _MOST_NAMES} more" if len(differing) > _MOST_NAMES else ""
    return "; ".join(parts) + more


def _form(tensors: Mapping[str, Tensor], name: str) -> str:
    """Return the shape and type of a tensor in words."""
    if name not in tensors:
        return "none"
    return f"{tuple(tensors[name].shape)} {str(tensors[name].dtype).removeprefix('torch.')}"


def _printable(name: str) -> str:
    """Return a tensor's name, which may come from a foreign file, as short printable text."""
    return name if name.isprintable() and len(name) <= 120 else ascii(name)[:120]
