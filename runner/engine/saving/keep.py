"""The weights files that a finished run leaves, and the removal of the others. The caller holds the lock of the run."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runner import user_paths
from runner.engine.saving import manifest, storage
from runner.engine.saving.folder import within
from runner.engine.saving.manifest import DATA_NAME, FOLDER, name_of
from runner.engine.saving.rotation import looks_complete, steps_in
from runner.errors import CheckpointError, StorageError


def superfluous(
    folder: Path, weights: str | None, *, snapshots: Sequence[str] = (), last: bool = False
) -> dict[str, int]:
    """Return the checkpoint files of a finished run that need not stay, with their bytes.

    They are those that readable manifests list, and these manifests; never a link or a file that runner did not write.

    Args:
        folder: The run folder.
        weights: The selected weights file, relative to the folder, which stays; None keeps nothing.
        snapshots: Other weights files that stay.
        last: The newest checkpoint stays, too. If it is damaged, all stay.
    """
    checkpoints = folder / FOLDER
    if not user_paths.is_dir(checkpoints, links=False, error=StorageError):
        return {}
    kept, steps = _kept_steps(folder, weights, snapshots), steps_in(storage.names(checkpoints))
    if last and not (steps and looks_complete(checkpoints, steps[-1])):
        return {}
    found: dict[str, int] = {}
    for step in steps[:-1] if last else steps:
        try:
            listed = manifest.read(checkpoints, step)
        except CheckpointError:
            continue
        # The manifests last: a run that was not finished after all then finds them damaged, and not missing
        names = [file.name for file in listed.files if step not in kept or file != listed.weights]
        for name in [*names, *([name_of(step)] if step not in kept else [])]:
            status = user_paths.status(checkpoints / name, links=False, error=StorageError)
            if status and stat.S_ISREG(status.st_mode):
                found[name] = status.st_size
    return found


def keep_only(folder: Path, weights: str | None, *, snapshots: Sequence[str] = (), last: bool = False) -> int:
    """Remove what `superfluous` lists, and return the bytes; manifests of kept weights no longer name a state.

    After a kill at any point the same call does the rest.
    """
    checkpoints, names = folder / FOLDER, superfluous(folder, weights, snapshots=snapshots, last=last)
    if _is_there(checkpoints):
        storage.remove_temporary(checkpoints)
    for name in names:
        storage.remove(checkpoints / name)
    for kept in sorted(_kept_steps(folder, weights, snapshots)):
        listed = manifest.read(checkpoints, kept)
        if listed.state and not _is_there(checkpoints / listed.state.name):
            without_state = replace(listed, state=None, tree={})
            storage.write_atomic(checkpoints / name_of(listed.step), manifest.encode(without_state))
    if names:
        with storage.convert_os_errors(checkpoints):
            storage.disk.fsync_folder(checkpoints)
    return sum(names.values())


def _is_there(path: Path) -> bool:
    """Return True if something is at a path."""
    return user_paths.exists(path, links=False, error=StorageError)


def _kept_steps(folder: Path, weights: str | None, snapshots: Sequence[str]) -> set[int]:
    """Return the steps of the weights files that stay."""
    return set() if weights is None else {step_of(folder, name) for name in (weights, *snapshots)}


def step_of(folder: Path, weights: str) -> int:
    """Return the step of a weights file of a run; raises CheckpointError if its manifest does not list it."""
    path = within(folder, weights)
    match = DATA_NAME.fullmatch(path.name)
    step = int(match["step"]) if match else -1
    if path.parent != folder / FOLDER or manifest.read(folder / FOLDER, step).weights.name != path.name:
        raise CheckpointError(f"{storage.printable(path)}: no manifest lists it")
    return step
