"""The weights files of a finished run that can be members of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner import user_paths
from runner.engine.saving import checkpoint
from runner.engine.saving.folder import read_result
from runner.engine.saving.keep import step_of
from runner.engine.saving.storage import printable
from runner.errors import CheckpointError

_Role = Literal["selected", "last", "snapshot"]


@dataclass(frozen=True)
class Member:
    """A weights file of a run, which `read_member` loads.

    Attributes:
        file: Relative to the run folder, as in `checkpoints/00000040.weights.safetensors`.
        step: The optimizer steps after which the model had these weights.
        roles: `selected`: those that `run=` reads; `last`: those after the last step; `snapshot`: kept by
            `average=snapshots`. A file may be all three.
    """

    file: str
    step: int
    roles: tuple[_Role, ...]


def members_of(folder: Path) -> list[Member]:
    """Return the weights files of a finished run, each one once, in the order of their steps.

    With an average (`ema`, `swa`, `polyak`, `lookahead`, ...) these are averaged weights. The last weights are there
    with `keep=best+last` only, or where they are selected or a snapshot.

    Raises CheckpointError if the run did not finish, has no weights, or lacks a file that it names.
    """
    result = read_result(folder)
    if not result.status.finished:
        raise CheckpointError(f"{printable(folder)}: is not finished ({result.status}); resume it first")
    if result.weights is None:
        raise CheckpointError(f"{printable(folder)}: has no weights (keep=none, or task=clean removed them)")
    snapshots = {step_of(folder, name): name for name in result.snapshots or ()}
    selected = step_of(folder, result.weights)
    files = {**snapshots, selected: result.weights}
    if result.steps not in files and (last := _last_file(folder, result.steps)):
        files[result.steps] = last
    for file in files.values():
        if not user_paths.exists(folder / file, error=CheckpointError):
            raise CheckpointError(f"{printable(folder / file)}: is missing, although its manifest names it")
    steps: dict[_Role, set[int]] = {"selected": {selected}, "last": {result.steps}, "snapshot": set(snapshots)}
    return [Member(files[s], s, tuple(role for role, at in steps.items() if s in at)) for s in sorted(files)]


def _last_file(folder: Path, step: int) -> str | None:
    """Return the weights file after the last step, None if the run did not keep it."""
    try:
        return checkpoint.weights_file(folder, step).relative_to(folder).as_posix()
    except CheckpointError:
        return None
