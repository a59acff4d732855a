"""Removal of old checkpoints and of the leftovers of killed saves; the caller holds the run's lock."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from runner.engine.saving import manifest, storage
from runner.engine.saving.manifest import DATA_NAME, FOLDER, NAME, name_of
from runner.errors import CheckpointError


def steps_in(names: Collection[str]) -> list[int]:
    """Return the steps that have a manifest among the names of a folder, ascending."""
    steps = {int(match["step"]) for name in names if (match := NAME.fullmatch(name))}
    return sorted(step for step in steps if name_of(step) in names)


def unused_stem(names: Collection[str], step: int) -> str:
    """Return a free stem for the data files of a step: an earlier checkpoint of the step keeps its files for now."""
    stems = itertools.chain([f"{step:08d}"], (f"{step:08d}.{n}" for n in range(1, 1000)))
    return next(s for s in stems if not any(name.startswith((f"{s}.weights.", f"{s}.state.")) for name in names))


def clean(folder: Path) -> None:
    """Remove from a run folder what killed saves left: temporary files, and data files that no manifest lists."""
    storage.sweep(folder)
    if (place := folder / FOLDER).is_dir():
        tidied(place)


def tidied(place: Path) -> list[str]:
    """Remove the leftovers of killed saves from a folder of checkpoints, and return the remaining names."""
    names = storage.sweep(place)
    gone = set(_leftovers(place, names))
    _remove_data(place, gone)
    return [name for name in names if name not in gone]


def _leftovers(place: Path, names: Collection[str]) -> Iterator[str]:
    """Yield the data files that no manifest lists; files beside an unreadable manifest stay for the user to inspect."""
    steps = steps_in(names)
    for step, group in itertools.groupby(filter(DATA_NAME.fullmatch, names), key=_step_of):
        files = list(group)
        if step not in steps:
            yield from files
        elif len(files) > 2:  # else they are those that it lists
            with contextlib.suppress(CheckpointError):
                yield from set(files) - {file.name for file in manifest.read(place, step).files}


def older(names: Iterable[str], step: int) -> list[str]:
    """Return the file names of the checkpoints before a step."""
    ours = (name for name in names if NAME.fullmatch(name) or DATA_NAME.fullmatch(name))
    return [name for name in ours if _step_of(name) < step]


def _step_of(name: str) -> int:
    """Return the step of a checkpoint's file."""
    return int(name.partition(".")[0])


def rotate(place: Path, names: Collection[str], step: int, keep: Collection[int], newest: int) -> None:
    """Remove the checkpoints that are not kept; `names` are those in the folder before `step` was saved.

    Kept are the steps in `keep` and the `newest` up to `step`, if they look whole. Later steps go: a run that went back
    to an older checkpoint has left them. So do the data of an earlier checkpoint of `step`.
    """
    steps = [old for old in steps_in(names) if old != step]
    whole = (old for old in reversed(steps) if old < step and _looks_whole(place, old))
    gone = set(steps) - {*keep, *itertools.islice(whole, newest - 1)}
    for old in gone:
        storage.remove(place / name_of(old))
    _remove_data(place, [name for name in names if DATA_NAME.fullmatch(name) and _step_of(name) in {step, *gone}])


def _looks_whole(place: Path, step: int) -> bool:
    """Return True if a checkpoint has a sound manifest and files of the right sizes (their bytes are not read)."""
    try:
        return all((place / file.name).lstat().st_size == file.size for file in manifest.read(place, step).files)
    except (CheckpointError, OSError):
        return False


def _remove_data(place: Path, names: Iterable[str]) -> None:
    """Remove data files; a folder of such a name is none."""
    for name in names:
        if not (place / name).is_dir():
            storage.remove(place / name)
