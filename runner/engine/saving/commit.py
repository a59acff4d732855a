"""The files of one checkpoint: written durably, committed by the manifest, and verified."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from runner import user_paths
from runner.engine.saving import manifest, storage, tensor_file
from runner.engine.saving.manifest import FOLDER, File, Manifest, name_of
from runner.engine.saving.rotation import unused_stem
from runner.engine.saving.state import flatten
from runner.engine.state_dict import StateDict
from runner.errors import StorageError


class PendingCheckpoint:
    """A checkpoint whose data files are written; `commit` makes it valid.

    Args:
        checkpoints: The checkpoint folder.
        names: The file names in it.
        step: The number of optimizer steps done.
        weights: The tensors that evaluation needs, by name.
        state: The rest of the state; None stores the weights only.
    """

    def __init__(
        self,
        checkpoints: Path,
        names: Collection[str],
        step: int,
        weights: Mapping[str, Tensor],
        state: dict[str, Any] | None,
    ) -> None:
        self._checkpoints, self._step = checkpoints, step
        self._versions = {manifest.VERSIONS: weights.versions} if isinstance(weights, StateDict) else {}
        stem = checkpoints / unused_stem(names, step)
        tensors, self._tree = ({}, {}) if state is None else flatten(state, weights)
        self.weights = tensor_file.write(Path(f"{stem}.weights.safetensors"), weights)
        self._state: File | None = None
        if state is not None:
            self._state = tensor_file.write(Path(f"{stem}.state.safetensors"), tensors)

    def commit(self, logs: Mapping[str, int], meta: Mapping[str, Any]) -> dict[str, str]:
        """Write the manifest, and return the sha256 of each file by name; the names of the data files are durable."""
        listed = Manifest(self._step, self.weights, self._state, dict(logs), self._tree, {**meta, **self._versions})
        digest = storage.write_atomic(self._checkpoints / name_of(self._step), manifest.encode(listed))
        return {name_of(self._step): digest, **{file.name: file.sha256 for file in listed.files}}


def checkpoint_folder(folder: Path) -> Path:
    """Return the checkpoint folder of a run; create it if it does not exist."""
    checkpoints = folder / FOLDER
    with storage.convert_os_errors(checkpoints):
        if not user_paths.is_dir(checkpoints, links=False, error=StorageError):
            storage.make_folder(checkpoints)
    return checkpoints


def verify(checkpoints: Path, digests: Mapping[str, str]) -> None:
    """Read the files of a new checkpoint back; raise StorageError if a sha256 differs from what was written."""
    for name, digest in digests.items():
        with storage.convert_os_errors(checkpoints / name):
            if storage.sha256_of(checkpoints / name) != digest:
                raise StorageError(
                    f"{storage.printable(checkpoints / name)}: the file read back differs from what was written"
                )
