"""The members of a tar file with their places: only headers are read, nothing is extracted.

Python's `tarfile` stops without a word at a damaged header in the middle, so that a part of the data would be missing.
Here whatever is not a whole, plain tar file is an error with the place. The formats are POSIX ustar and pax, and GNU's
long names and sizes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from runner.engine.saving.storage import printable
from runner.errors import DataError, brief, escaped
from runner.user_paths import full

_BLOCK = 512
# Bytes that are read at a header: small members behind it, such as labels, come with it
_CHUNK = 4096
_MAX_NAME, _MAX_PAX = 1 << 16, 1 << 20
_ZERO = bytes(_BLOCK)
_REGULAR, _FOLDER = (b"0", b"\0", b"7"), b"5"
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


class Member(NamedTuple):
    """A regular file in a tar file: its name, and the place of its contents in bytes."""

    name: str
    offset: int
    size: int


class TarReader:
    """Reads the headers of an open tar file, and small contents."""

    def __init__(self, path: str | Path, file: int) -> None:
        self.path, self._file = Path(path), file
        self._length = os.fstat(file).st_size
        self._start, self._chunk = 0, b""

    def problem(self, what: str, at: int | None = None) -> DataError:
        """Return the error about a place in the file."""
        return DataError(f"{printable(self.path)}: {what}{'' if at is None else f' at byte {at}'}")

    def read(self, offset: int, size: int) -> bytes:
        """Return some bytes of the file; fewer at its end."""
        if not self._start <= offset <= offset + size <= self._start + len(self._chunk):
            self._start, self._chunk = offset, os.pread(self._file, max(size, _CHUNK), offset)
        return self._chunk[offset - self._start : offset - self._start + size]

    def members(self) -> Iterator[Member]:
        """Yield the regular files in order. Raises DataError for all else than folders, and for any damage."""
        place = 0
        name: str | None = None
        size: int | None = None
        while (header := self._header(place)) is not None:
            kind, own_name, own_size = header
            after = place + _BLOCK
            length = own_size if size is None or kind in b"LKxg" else size
            if after + length > self._length:
                shown = escaped(brief(name or own_name))
                raise self.problem(f"is cut off in the member '{shown}', which needs {length} bytes", after)
            if kind == b"L":
                name = self._text(after, length, _MAX_NAME).rstrip(b"\0").decode(errors="surrogateescape")
            elif kind in b"xg":
                records = self._records(after, length, everywhere=kind == b"g")
                name, size = records.get("path", name), int(records["size"]) if "size" in records else size
            elif kind != b"K":
                if kind in _REGULAR:
                    yield Member(name or own_name, after, length)
                elif kind != _FOLDER:
                    what = _KINDS.get(kind, f"of the unknown type {kind!r}")
                    shown = escaped(brief(name or own_name))
                    raise self.problem(f"the member '{shown}' is {what}; expected regular files only", place)
                name, size = None, None
            place = after + -(-length // _BLOCK) * _BLOCK

    def _header(self, place: int) -> tuple[bytes, str, int] | None:
        """Return type, name and size in the header at a place, None at the end of the members."""
        block = self.read(place, _BLOCK)
        if block == _ZERO:
            self._check_end(place)
            return None
        if len(block) < _BLOCK:
            raise self.problem("is cut off: it has no end mark", place)
        if place == 0 and (kind := _COMPRESSED.get(block[:2])):
            raise self.problem(f"is compressed ({kind}); unpack it, so that members can be read at their places")
        if _number(block[148:156]) != sum(block[:148]) + 8 * 32 + sum(block[156:]):
            raise self.problem("has no valid tar header", place)
        size = _number(block[124:136])
        if size is None or size < 0:
            raise self.problem("has a header without a size", place)
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and (folder := block[345:500].partition(b"\0")[0]):
            name = folder + b"/" + name
        return block[156:157], name.decode(errors="surrogateescape"), size

    def _check_end(self, place: int) -> None:
        """Raise DataError if more than zeros follows the end mark, as in tar files that were joined."""
        left = self._length - place
        # Tar files are filled up to a multiple of a block of at most this size
        if left > _MAX_PAX or self.read(place, left).strip(b"\0"):
            raise self.problem("has more members after its end mark", place)

    def _text(self, place: int, length: int, most: int) -> bytes:
        """Return the contents of a member that belongs to the header of the next one."""
        if length > most:
            raise self.problem(f"has a name or attributes of {length} bytes, expected at most {most}", place)
        return self.read(place, length)

    def _records(self, place: int, length: int, *, everywhere: bool) -> dict[str, str]:
        """Return the attributes of a pax header that matter: path and size."""
        text = self._text(place, length, _MAX_PAX)
        found: dict[str, str] = {}
        while text.strip(b"\0"):
            digits, _, _ = text.partition(b" ")
            count = int(digits) if digits.isdigit() and len(digits) < 9 else 0
            key, equal, value = text[len(digits) + 1 : count - 1].partition(b"=")
            if not (equal and count <= len(text) and text[count - 1 : count] == b"\n"):
                raise self.problem("has damaged attributes (pax)", place)
            found[key.decode(errors="replace")] = value.decode(errors="surrogateescape")
            text = text[count:]
        if any(key.startswith("GNU.sparse") for key in found):
            raise self.problem("has a sparse file; expected regular files only", place)
        if (everywhere and found.keys() & {"path", "size"}) or not found.get("size", "0").isdigit():
            raise self.problem("has attributes (pax) that no member can have", place)
        return {} if everywhere else found


def _number(field: bytes) -> int | None:
    """Return the number in a field: octal digits, or bytes after a mark; None for anything else."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:]) if field[0] == 0x80 else None
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


@contextmanager
def opened(path: str | Path) -> Iterator[TarReader]:
    """Open a tar file. Raises DataError if the system refuses."""
    try:
        file = os.open(full(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(Path(path))}: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield TarReader(path, file)
    except OSError as error:
        raise DataError(f"{printable(Path(path))}: cannot be read ({error.strerror})") from error
    finally:
        os.close(file)
