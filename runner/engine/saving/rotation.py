"""Which checkpoints stay, and what killed saves left behind. Everything here wants the run's lock held."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection
from pathlib import Path

from runner.engine.saving import manifest, storage
from runner.engine.saving.manifest import DATA_NAME, FOLDER, NAME, File, name_of
from runner.errors import CheckpointError

STEM = re.compile(r"(?P<stem>.*)\.(weights|state)\..*")


def steps_in(place: Path) -> list[int]:
    """Return the steps that have a manifest, ascending."""
    names = set(storage.names(place))
    steps = {int(match["step"]) for name in names if (match := NAME.fullmatch(name))}
    return sorted(step for step in steps if name_of(step) in names)


def unused_stem(place: Path, step: int) -> str:
    """Return how the data files of a step are to begin: a checkpoint of the same step keeps its own until it goes."""
    taken = {match["stem"] for name in storage.names(place) if (match := STEM.fullmatch(name))}
    stems = itertools.chain([f"{step:08d}"], (f"{step:08d}.{n}" for n in range(1, 1000)))
    return next(stem for stem in stems if stem not in taken)


def rotate(place: Path, step: int, keep: Collection[int], newest: int) -> None:
    """Remove the manifests of checkpoints that are not kept (`clean` then takes their data).

    Kept are the steps in `keep` and the `newest` up to `step` that look whole. Later steps go: a run that went back to
    an older checkpoint has left them.
    """
    steps = steps_in(place)
    whole = [old for old in steps if old <= step and looks_whole(place, old)]
    for old in set(steps) - {*keep, *whole[-newest:]}:
        storage.remove(place / name_of(old))


def looks_whole(place: Path, step: int) -> bool:
    """Tell whether a checkpoint has a sound manifest and files of the right sizes (their bytes are not read)."""
    try:
        return all((place / file.name).lstat().st_size == file.size for file in listed(place, step))
    except (CheckpointError, OSError):
        return False


def clean(folder: Path) -> None:
    """Remove from a run folder what killed saves left: temporary files, and data files that no manifest lists."""
    storage.sweep(folder)
    place = folder / FOLDER
    if not place.is_dir():
        return
    storage.sweep(place)
    kept = {step: files_of(place, step) for step in steps_in(place)}
    for name in storage.names(place):
        match = DATA_NAME.fullmatch(name)
        if match and name not in kept.get(int(match["step"]), ()) and not (place / name).is_dir():
            storage.remove(place / name)


def files_of(place: Path, step: int) -> Collection[str]:
    """Return the data files that a manifest lists; of an unreadable one all of its step, for a human to look at."""
    try:
        return [file.name for file in listed(place, step)]
    except CheckpointError:
        return [name for name in storage.names(place) if name.startswith(f"{step:08d}.")]


def listed(place: Path, step: int) -> tuple[File, File]:
    """Return the data files that a sound manifest lists; CheckpointError says what is wrong with it."""
    name = name_of(step)
    try:
        return parts_of(storage.read(place / name, manifest.LIMIT), step)
    except OSError as error:
        raise CheckpointError(f"{name}: {error.strerror}") from error


@functools.lru_cache(maxsize=8)  # the same few are looked at several times in each save
def parts_of(data: bytes, step: int) -> tuple[File, File]:
    """Return the data files that the bytes of a manifest list."""
    found = manifest.decode(data, step)
    return found.weights, found.state
