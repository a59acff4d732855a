"""Checkpoints: a crash at any moment leaves a valid one, and a damaged one is never loaded.

A checkpoint has three files in `<run>/checkpoints/`: `<step>.weights.safetensors` (which evaluation loads),
`<step>.state.safetensors` and the manifest `<step>.json`, which is written last and commits the checkpoint. There is no
pickle and no file that points to the newest checkpoint: that is the newest one with correct checksums. Of the best step
there may be weights only: a manifest without a state, from which no run resumes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from runner import user_paths
from runner.engine.saving import manifest, storage, tensor_file
from runner.engine.saving.commit import PendingCheckpoint, checkpoint_folder, verify
from runner.engine.saving.held_weights import StepWeights
from runner.engine.saving.manifest import DATA_NAME, FOLDER, Manifest, NewerFormat, name_of
from runner.engine.saving.rotation import names_before, remove_leftovers, rotate, steps_in
from runner.engine.saving.state import restore
from runner.engine.state_dict import StateDict
from runner.errors import CheckpointError, StorageError

# Number of the newest checkpoints to keep, besides the steps in `keep`.
_NEWEST = 2
# Tensors that the message of `mismatch` names at most.
_MAX_NAMES = 3


@dataclass(frozen=True)
class Snapshot:
    """A loaded checkpoint.

    Attributes:
        step: The number of optimizer steps done.
        weights, state, logs, meta: What was given to `save`.
        notes: One line for each newer checkpoint that was damaged and skipped.
    """

    step: int
    weights: StateDict
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
    earlier: Sequence[StepWeights] = (),
) -> Path:
    """Write the checkpoint of a step into a run folder, verify it, and remove old checkpoints.

    Returns the path of the weights file. Raises StorageError and keeps the earlier checkpoints if writing fails.

    Args:
        folder: The run folder; the caller holds its lock.
        step: The number of optimizer steps done.
        weights: The tensors that evaluation needs, by name.
        state: The rest of the state: nested dicts, lists and tuples of tensors, numbers and strings.
        logs: The length of each log file in bytes.
        meta: JSON values to store beside the state.
        keep: Steps to keep; later steps that are not listed are removed.
        newest: The number of newest checkpoints to keep, at least 1, this one included.
        earlier: Weights of earlier steps, which are saved before; the steps must be in `keep`.
    """
    checkpoints = checkpoint_folder(folder)
    names = remove_leftovers(checkpoints)
    written = [PendingCheckpoint(checkpoints, names, each.step, each.weights, None) for each in earlier]
    written.append(PendingCheckpoint(checkpoints, names, step, weights, state))
    with storage.convert_os_errors(checkpoints):
        # All names must be durable before the manifest that lists them.
        storage.disk.fsync_folder(checkpoints)
    # The earlier weights first: nobody may find this checkpoint without them
    for each in written:
        verify(checkpoints, each.commit(logs, meta))
    rotate(checkpoints, names, step, keep, newest, replaced=[each.step for each in earlier])
    return checkpoints / written[-1].weights.name


def save_weights(folder: Path, step: int, weights: Mapping[str, Tensor], *, meta: Mapping[str, Any]) -> Path:
    """Write weights of a step with their manifest, from which no run resumes, and return the path of their file."""
    checkpoints = checkpoint_folder(folder)
    pending = PendingCheckpoint(checkpoints, storage.names(checkpoints), step, weights, None)
    with storage.convert_os_errors(checkpoints):
        storage.disk.fsync_folder(checkpoints)
    verify(checkpoints, pending.commit({}, meta))
    return checkpoints / pending.weights.name


def remove_outdated(folder: Path, step: int, *, keep: Collection[int], newest: int = _NEWEST) -> None:
    """Remove durably the older checkpoints that `save` of a step did not remove; see `save` for the arguments.

    A power cut may bring back what `save` removed, and nothing else removes it from a finished run.
    """
    checkpoints = folder / FOLDER
    rotate(checkpoints, names_before(storage.names(checkpoints), step), step, keep, newest)
    with storage.convert_os_errors(checkpoints):
        storage.disk.fsync_folder(checkpoints)


def load(folder: Path, *, step: int | None = None, before: int | None = None) -> Snapshot | None:
    """Return the newest valid checkpoint of a run folder; None if there is no checkpoint.

    Args:
        folder: The run folder.
        step: Load the checkpoint of this step only.
        before: Load a checkpoint of an earlier step only.

    Raises:
        CheckpointError: There are checkpoints but none is valid, there is none of `step`, or the newest valid manifest
            has the format of a later version.
    """
    checkpoints = folder / FOLDER
    with storage.convert_os_errors(checkpoints):
        if not user_paths.exists(checkpoints, links=False, error=StorageError):
            return None
        if not user_paths.is_dir(checkpoints, links=False, error=StorageError):
            raise CheckpointError(f"{storage.printable(checkpoints)}: is not a folder")
    steps = steps_in(storage.names(checkpoints))
    if step is not None:
        if step not in steps:
            raise CheckpointError(
                f"{storage.printable(checkpoints)}: no checkpoint of step {step} (available: {steps})"
            )
        steps = [step]
    steps = [each for each in steps if before is None or each < before]
    return _newest_valid(checkpoints, steps)


def _newest_valid(checkpoints: Path, steps: list[int]) -> Snapshot | None:
    """Return the newest of the checkpoints whose files match their manifest."""
    rejected: list[str] = []
    for step in reversed(steps):
        try:
            if (snapshot := _read(checkpoints, step)) is None:
                continue
        except NewerFormat as error:
            raise CheckpointError(f"{storage.printable(checkpoints)}/{error}") from error
        except CheckpointError as error:
            rejected.append(str(error))
        else:
            where = storage.printable(checkpoints)
            notes = [f"checkpoint {where}/{reason}; going back to {name_of(step)}" for reason in rejected]
            return replace(snapshot, notes=notes)
    if rejected:
        raise CheckpointError(
            f"{storage.printable(checkpoints)}: no valid checkpoint among {len(rejected)}; {rejected[0]}"
        )
    return None


def _read(checkpoints: Path, step: int) -> Snapshot | None:
    """Return the checkpoint of a step after verifying all checksums; None if it has weights only."""
    listed = manifest.read(checkpoints, step)
    if listed.state is None:
        return None
    weights = tensor_file.read(checkpoints, listed.weights)
    weights.versions = manifest.versions_in(listed)
    tensors = tensor_file.read(checkpoints, listed.state)
    try:
        state = restore(listed.tree, tensors, weights)
    except ValueError as error:
        raise CheckpointError(f"{name_of(step)}: {error}") from error
    if type(state) is not dict:
        raise CheckpointError(f"{name_of(step)}: the state is not a mapping")
    return Snapshot(step, weights, state, listed.logs, listed.meta)


def weights_file(folder: Path, step: int) -> Path:
    """Return the path of the weights of a step; raise CheckpointError if it has no readable manifest."""
    checkpoints = folder / FOLDER
    try:
        return checkpoints / manifest.read(checkpoints, step).weights.name
    except CheckpointError as error:
        raise CheckpointError(f"{storage.printable(checkpoints)}/{error}") from error


def read_weights(path: Path) -> StateDict:
    """Return the tensors of a weights file; verify size and checksum if the manifest is in the same folder."""
    try:
        if listed := _manifest_beside(path):
            files = {file.name: file for file in listed.files}
            if path.name not in files:
                raise CheckpointError(f"{path.name}: does not belong to the checkpoint {name_of(listed.step)}")
            weights = tensor_file.read(path.parent, files[path.name])
            weights.versions = manifest.versions_in(listed)
            return weights
        return tensor_file.parse(tensor_file.read_bytes(path), path.name)
    except CheckpointError as error:
        raise CheckpointError(f"{storage.printable(path.parent)}/{error}") from error


def meta_of(path: Path) -> dict[str, Any]:
    """Return the `meta` of the checkpoint of a weights file; empty if there is no manifest in its folder."""
    try:
        listed = _manifest_beside(path)
    except CheckpointError as error:
        raise CheckpointError(f"{storage.printable(path.parent)}/{error}") from error
    return listed.meta if listed else {}


def _manifest_beside(path: Path) -> Manifest | None:
    """Return the manifest in the folder of a data file; None if there is none."""
    match = DATA_NAME.fullmatch(path.name)
    if match is None:
        return None
    if not user_paths.exists(path.with_name(f"{match['step']}.json"), links=False, error=CheckpointError):
        return None
    return manifest.read(path.parent, int(match["step"]))


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Return the first differences in names, shapes and dtypes as one line; None if there are none."""
    names = [*expected, *(name for name in found if name not in expected)]
    differing = [name for name in names if _shape_and_dtype(expected, name) != _shape_and_dtype(found, name)]
    if not differing:
        return None
    parts = [
        f"{_printable(name)}: expected {_shape_and_dtype(expected, name)}, found {_shape_and_dtype(found, name)}"
        for name in differing[:_MAX_NAMES]
    ]
    more = f"; and {len(differing) - _MAX_NAMES} more" if len(differing) > _MAX_NAMES else ""
    return "; ".join(parts) + more


def _shape_and_dtype(tensors: Mapping[str, Tensor], name: str) -> str:
    """Return the shape and dtype of a tensor as text; "none" if there is no such tensor."""
    if name not in tensors:
        return "none"
    return f"{tuple(tensors[name].shape)} {str(tensors[name].dtype).removeprefix('torch.')}"


def _printable(name: str) -> str:
    """Return the name of a tensor as short printable text: in a file from elsewhere it may contain anything."""
    return name if name.isprintable() and len(name) <= 120 else ascii(name)[:120]
