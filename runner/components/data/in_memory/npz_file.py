"""Arrays of an .npz file, read without pickle; sizes are checked before anything is decompressed."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from runner.components.data.in_memory.table_file import check_file
from runner.engine.saving.storage import printable
from runner.errors import MOST_CHOICES, DataError, brief
from runner.user_paths import full

# Arrays that a file may have, and bytes of the zip directory that lists them
_MAX_ARRAYS = 1000
_MAX_DIRECTORY = 1 << 20
# Bytes of an array that are decompressed to read its header
_HEADER = 1 << 14
# Compression methods that numpy writes. Others may allocate gigabytes for a few bytes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The end of a zip file: the record of 22 bytes, and a comment of at most 65,535
_END, _END_SIZE, _END_AREA = b"PK\x05\x06", 22, 22 + 65535


@dataclass(frozen=True)
class _Header:
    """One array of a file as its header describes it; `problem` says why it cannot be read, "" if it can."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    problem: str = ""

    @property
    def nbytes(self) -> int:
        """Return the size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        """Return name, shape and type: `x_train (60000, 28, 28) uint8`."""
        return f"{self.name} {self.shape} {self.dtype.name}" if not self.problem else f"{self.name} ({self.problem})"


def list_arrays(path: Path) -> dict[str, _Header]:
    """Return the arrays of an .npz file by name, without reading them.

    Raises:
        DataError: The file is missing or is not an .npz file.
    """
    _check_file(path)
    try:
        with zipfile.ZipFile(full(path)) as file:
            members = [each for each in file.infolist() if each.filename.endswith(".npy")]
            headers = [_read_header(file, member) for member in members]
    except Exception as error:
        raise _unreadable(path, error) from error
    found = {header.name: header for header in headers}
    if len(found) < len(headers):
        twice = next(header.name for header in headers if header is not found[header.name])
        raise DataError(f"data.root: {printable(path)} has two arrays named '{brief(twice)}'")
    if not found:
        raise DataError(f"data.root: {printable(path)} has no arrays; save them with numpy.savez(path, x=..., y=...)")
    return found


def read_arrays(path: Path, headers: Iterable[_Header], memory: int) -> dict[str, NDArray[Any]]:
    """Return arrays in native byte order and C order.

    Args:
        path: The .npz file.
        headers: The arrays to read.
        memory: MiB that they may take together.

    Raises:
        DataError: An array has objects or another type without numbers or text, is damaged or is too large.
    """
    wanted = {header.name: header for header in headers}
    for header in wanted.values():
        if header.problem:
            raise DataError(f"data.root: {printable(path)}: array {header}")
    needed = sum(header.nbytes for header in wanted.values())
    if needed > memory * 2**20:
        raise DataError(
            f"data.root: {printable(path)}: its arrays take {math.ceil(needed / 2**20)} MiB, must be <= data.memory "
            f"({memory} MiB)"
        )
    try:
        with zipfile.ZipFile(full(path)) as file:
            return {name: _read(file, name) for name in wanted}
    except Exception as error:
        raise _unreadable(path, error) from error


def listed(headers: Mapping[str, _Header]) -> str:
    """Return the arrays of a file in words, at most a few."""
    some = [brief(str(header)) for header in headers.values()][:MOST_CHOICES]
    more = f", ... {len(headers) - len(some)} more" if len(headers) > len(some) else ""
    return ", ".join(some) + more


def _check_file(path: Path) -> None:
    """Raise DataError for a file that is missing, is not a zip file, or whose directory is too large to be real."""
    where = f"data.root: {printable(path)}"
    try:
        check_file(path, where, "an .npz file")
        with Path(full(path)).open("rb") as file:
            start = file.read(6)
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _END_AREA))
            tail = file.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{where} cannot be read ({error})") from error
    if start == b"\x93NUMPY":
        raise DataError(f"{where} is an .npy file with one array; save with numpy.savez(path, x=..., y=...)")
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + _END_SIZE:
        raise DataError(f"{where} is not an .npz file, or is cut off")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    if count > _MAX_ARRAYS or directory > _MAX_DIRECTORY:
        raise DataError(f"{where} has {count} arrays in a list of {directory} bytes, must be at most {_MAX_ARRAYS}")


def _unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a damaged file."""
    if isinstance(error, DataError):
        return error
    reason = brief(" ".join(str(error).split()) or type(error).__name__)
    return DataError(f"data.root: {printable(path)} cannot be read as an .npz file ({reason})")


def _read_header(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    """Return the header of an array; at most `_HEADER` bytes are decompressed."""
    name = member.filename.removesuffix(".npy")
    unknown = _Header(name, (), np.dtype("V1"), "compressed or encrypted in another way than numpy does")
    if member.compress_type not in _METHODS or member.flag_bits & 1:
        return unknown
    with file.open(member) as stream:
        start = io.BytesIO(stream.read(_HEADER))
    version = npy.read_magic(start)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        return _Header(name, (), np.dtype("V1"), "has named fields; save one array per field")
    shape, _, dtype = readers[version](start)
    return _Header(name, shape, dtype, _problem(shape, dtype, member.file_size - start.tell()))


def _problem(shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> str:
    """Return why an array with `size` bytes of values cannot be read, "" if it can."""
    if dtype.hasobject:
        return (
            "has Python objects, which only pickle can read; save numbers or text, as in y.astype(int) or astype(str)"
        )
    if dtype.kind not in "biufUS":
        return f"has type {dtype.name}, expected numbers or text"
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        return f"has {size} bytes, expected {math.prod(shape) * dtype.itemsize} for its shape {shape}"
    return ""


def _read(file: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return one array in native byte order and C order; the zip file's checksum is verified."""
    with file.open(f"{name}.npy") as stream:
        values = npy.read_array(stream, allow_pickle=False)
    return np.asarray(values, dtype=values.dtype.newbyteorder("="), order="C")
