"""Tensors as one safetensors file: written durably, read only after size and checksum are found right."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from runner.engine.saving import storage
from runner.engine.saving.manifest import File
from runner.errors import CheckpointError

HEADER = 2 << 20  # bytes of names and shapes, about 20,000 tensors: each takes 1.5 kB of memory, a name takes 60 bytes
TYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64",
    torch.float32: "F32", torch.uint32: "U32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip  # in the order in which they stand in a file
RANKS = {dtype: rank for rank, dtype in enumerate(TYPES)}
MALFORMED = (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, AssertionError, MemoryError)


def write(path: Path, tensors: Mapping[str, Tensor]) -> File:
    """Write tensors, each copied to the CPU at most once, and return what a manifest says about the file.

    Its name is durable once the folder is synced.
    """
    data = encode(on_cpu(tensors))
    bounded(data, path.name)
    return File(path.name, len(data), storage.put(path, data))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU."""
    return {
        name: tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous() for name, tensor in tensors.items()
    }


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file as the package's own `save` has it, which takes two to five times as long.

    The header's length (8 bytes), the header (JSON: type, shape, first and last byte of each tensor) filled up with
    spaces to a multiple of 8 bytes, the tensors. They stand in order of type, widest first, and of name.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    order, end = sorted(tensors, key=lambda name: (RANKS[tensors[name].dtype], name)), 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    parts = [tensors[name].reshape(-1).view(torch.uint8).numpy().data for name in order]
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def read(folder: Path, file: File) -> dict[str, Tensor]:
    """Return the tensors of a file that is, byte for byte, what its manifest says."""
    data = read_bytes(folder / file.name, file.size)
    if len(data) != file.size:
        raise CheckpointError(f"{file.name}: holds {len(data)} bytes, the manifest says {file.size}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CheckpointError(f"{file.name}: damaged (its sha256 is not the manifest's)")
    return parse(data, file.name)


def read_bytes(path: Path, limit: int = sys.maxsize) -> bytes:
    """Return the bytes of a regular file; CheckpointError says why it cannot be read."""
    try:
        return storage.read(path, limit)
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from error


def parse(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors in the bytes of a safetensors file, which checks the header before it allocates."""
    bounded(data, name)
    try:
        return dict(load(data))
    except MALFORMED as error:
        raise CheckpointError(f"{name}: no safetensors file ({ascii(str(error))[1:-1][:100]})") from error


def bounded(data: bytes, name: str) -> None:
    """Refuse a file whose header, the length of which comes first, would take many times its size in memory."""
    if (size := int.from_bytes(data[:8], "little")) > HEADER:
        raise CheckpointError(f"{name}: a header of {size} bytes, at most {HEADER} are taken")
