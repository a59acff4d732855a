"""Removal of old checkpoints and of files that killed saves left. The caller holds the lock of the run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from runner import user_paths
from runner.engine.saving import manifest, storage
from runner.engine.saving.manifest import DATA_NAME, FOLDER, NAME, name_of
from runner.errors import CheckpointError, StorageError


def steps_in(names: Collection[str]) -> list[int]:
    """Return the steps that have a manifest among the file names of a folder, in ascending order."""
    steps = {int(match["step"]) for name in names if (match := NAME.fullmatch(name))}
    return sorted(step for step in steps if name_of(step) in names)


def unused_stem(names: Collection[str], step: int) -> str:
    """Return a free stem for the data files of a step.

    An existing checkpoint of the same step keeps its files until the new one is committed.
    """
    stems = itertools.chain([f"{step:08d}"], (f"{step:08d}.{n}" for n in range(1, 1000)))
    return next(s for s in stems if not any(name.startswith((f"{s}.weights.", f"{s}.state.")) for name in names))


def clean(folder: Path) -> None:
    """Remove the files that killed saves left in a run folder: temporary files, and data files without a manifest."""
    storage.remove_temporary(folder)
    if user_paths.is_dir(checkpoints := folder / FOLDER, error=StorageError):
        remove_leftovers(checkpoints)


def remove_leftovers(checkpoints: Path) -> list[str]:
    """Remove the files that killed saves left in a checkpoint folder, and return the remaining names."""
    names = storage.remove_temporary(checkpoints)
    leftovers = set(_leftovers(checkpoints, names))
    _remove_data(checkpoints, leftovers)
    return [name for name in names if name not in leftovers]


def _leftovers(checkpoints: Path, names: Collection[str]) -> Iterator[str]:
    """Yield the data files that no manifest lists, except those of a step whose manifest cannot be read.

    The user may want to inspect these.
    """
    steps = steps_in(names)
    for step, group in itertools.groupby(filter(DATA_NAME.fullmatch, names), key=_step_of):
        files = list(group)
        if step not in steps:
            yield from files
        # One file of each kind is what the manifest lists, so it need not be read.
        elif len(files) > len({name.rpartition(".safetensors")[0].rpartition(".")[2] for name in files}):
            with contextlib.suppress(CheckpointError):
                yield from set(files) - {file.name for file in manifest.read(checkpoints, step).files}


def names_before(names: Iterable[str], step: int) -> list[str]:
    """Return the names of the checkpoint files of steps before `step`."""
    files = (name for name in names if NAME.fullmatch(name) or DATA_NAME.fullmatch(name))
    return [name for name in files if _step_of(name) < step]


def _step_of(name: str) -> int:
    """Return the step of a checkpoint file from its name."""
    return int(name.partition(".")[0])


def rotate(
    checkpoints: Path,
    names: Collection[str],
    step: int,
    keep: Collection[int],
    newest: int,
    replaced: Collection[int] = (),
) -> None:
    """Remove old checkpoints after the one of `step` was saved.

    The steps in `keep` and the `newest` checkpoints up to `step` that look complete are kept. Checkpoints of later
    steps are removed, since the run resumed from an older one. The data files of an earlier checkpoint of `step` are
    removed, too.

    Args:
        checkpoints: The checkpoint folder.
        names: The file names in it before `step` was saved.
        step: The step that was saved.
        keep: Steps to keep.
        newest: The number of newest checkpoints to keep, `step` included.
        replaced: Other steps that were saved: the data files of an earlier checkpoint of one are removed.
    """
    steps = [old for old in steps_in(names) if old != step]
    complete = (old for old in reversed(steps) if old < step and looks_complete(checkpoints, old))
    removed = set(steps) - {*keep, *itertools.islice(complete, newest - 1)}
    emptied = {step, *replaced, *removed}
    for old in removed:
        storage.remove(checkpoints / name_of(old))
    _remove_data(checkpoints, [name for name in names if DATA_NAME.fullmatch(name) and _step_of(name) in emptied])


def looks_complete(checkpoints: Path, step: int) -> bool:
    """Return True if a run can resume from a checkpoint, by manifest and sizes; checksums are not verified."""
    try:
        listed = manifest.read(checkpoints, step)
        files = listed.files
        found = [user_paths.status(checkpoints / file.name, links=False, error=CheckpointError) for file in files]
        complete = all(each and each.st_size == file.size for each, file in zip(found, files, strict=True))
        return complete and listed.state is not None
    except CheckpointError:
        return False


def _remove_data(checkpoints: Path, names: Iterable[str]) -> None:
    """Remove data files; a folder with the name of a data file is left."""
    for name in names:
        if not user_paths.is_dir(checkpoints / name, error=StorageError):
            storage.remove(checkpoints / name)
