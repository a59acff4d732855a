"""Tensors in a safetensors file: written durably, parsed only after size and checksum are verified."""

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
from runner.engine.state_dict import StateDict
from runner.errors import CheckpointError

# Bytes of the header, which has the names and shapes: enough for 20,000 tensors. The limit bounds the memory for a
# malicious header, because parsing takes 1.5 kB per tensor.
_MAX_HEADER = 2 << 20
# What safetensors may raise for a malformed file.
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
    """Write tensors to a file and return its entry for the manifest.

    The file itself is durable after this call, its name only after the folder is synced.
    """
    data = save(on_cpu(tensors), metadata={"format": "pt"})
    _check_header(data, path.name)
    return File(path.name, len(data), storage.write_unsynced(path, data))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU that do not share memory, as safetensors requires."""
    used, separate = set(), {}
    for name, tensor in tensors.items():
        host = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        pointer = host.untyped_storage().data_ptr()
        separate[name] = host.clone() if pointer in used else host
        used.add(pointer)
    return separate


def read(folder: Path, file: File) -> StateDict:
    """Return the tensors of a file; raise CheckpointError if its size or checksum is not that of the manifest."""
    data = read_bytes(folder / file.name, file.size)
    if len(data) != file.size:
        raise CheckpointError(f"{file.name}: has {len(data)} bytes, must have {file.size} according to the manifest")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CheckpointError(f"{file.name}: damaged (its sha256 is not the manifest's)")
    return parse(data, file.name)


def read_bytes(path: Path, limit: int = sys.maxsize) -> bytes:
    """Return the bytes of a regular file; raise CheckpointError if it cannot be read or has more than `limit`."""
    try:
        return storage.read(path, limit)
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from error


def parse(data: bytes, name: str) -> StateDict:
    """Return the tensors in the bytes of a safetensors file; raise CheckpointError if they are malformed.

    safetensors checks the header before it allocates memory for tensors.
    """
    if int.from_bytes(data[:8], "little") > len(data):
        raise CheckpointError(f"{name}: not a safetensors file, or an incomplete one")
    _check_header(data, name)
    try:
        return StateDict(load(data))
    except _MALFORMED as error:
        raise CheckpointError(f"{name}: not a safetensors file ({ascii(str(error))[1:-1][:100]})") from error


def _check_header(data: bytes, name: str) -> None:
    """Raise CheckpointError if the header is too long; the file begins with its length in 8 bytes."""
    if (size := int.from_bytes(data[:8], "little")) > _MAX_HEADER:
        raise CheckpointError(f"{name}: the header has {size} bytes, expected at most {_MAX_HEADER}")
