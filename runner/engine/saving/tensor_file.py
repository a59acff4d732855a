"""Tensors as one safetensors file: written durably, read only after size and checksum are verified."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from runner.engine.saving import storage
from runner.engine.saving.manifest import File
from runner.errors import CheckpointError

_HEADER = 2 << 20  # bytes of names and shapes, about 20,000 tensors: each takes 1.5 kB of memory, a name takes 60 bytes
_MALFORMED = (
    SafetensorError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    AssertionError,
    MemoryError,
)


def write(path: Path, tensors: Mapping[str, Tensor]) -> File:
    """Write tensors, each copied to the CPU at most once, and return what a manifest says about the file.

    Its name is durable once the folder is synced.
    """
    data = save(on_cpu(tensors), metadata={"format": "pt"})
    _bounded(data, path.name)
    return File(path.name, len(data), storage.put(path, data))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, none sharing memory with another (safetensors refuses that)."""
    taken, alone = set(), {}
    for name, tensor in tensors.items():
        here = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        pointer = here.untyped_storage().data_ptr()
        alone[name] = here.clone() if pointer in taken else here
        taken.add(pointer)
    return alone


def read(folder: Path, file: File) -> dict[str, Tensor]:
    """Return the tensors of a file after verifying its size and checksum against the manifest."""
    data = read_bytes(folder / file.name, file.size)
    if len(data) != file.size:
        raise CheckpointError(f"{file.name}: holds {len(data)} bytes, the manifest says {file.size}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CheckpointError(f"{file.name}: damaged (its sha256 is not the manifest's)")
    return parse(data, file.name)


def read_bytes(path: Path, limit: int = sys.maxsize) -> bytes:
    """Return the bytes of a regular file; raises CheckpointError if it cannot be read."""
    try:
        return storage.read(path, limit)
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from error


def parse(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors in the bytes of a safetensors file, which checks the header before it allocates."""
    _bounded(data, name)
    try:
        return dict(load(data))
    except _MALFORMED as error:
        raise CheckpointError(f"{name}: no safetensors file ({ascii(str(error))[1:-1][:100]})") from error


def _bounded(data: bytes, name: str) -> None:
    """Raise CheckpointError if the header, whose length comes first, would need far more memory than its size."""
    if (size := int.from_bytes(data[:8], "little")) > _HEADER:
        raise CheckpointError(f"{name}: a header of {size} bytes, at most {_HEADER} are taken")
