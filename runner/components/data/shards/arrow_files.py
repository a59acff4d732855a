"""Parquet, Feather and Arrow files as groups of rows: the parts that can be read one without the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, brief
from runner.user_paths import full

SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc")
_PARQUET, _FILE = b"PAR1", b"ARROW1"
# Older versions unpickle what a file's schema says (CVE-2023-47248)
_SAFE_SINCE = (14, 0, 1)


def load_pyarrow() -> Any:
    """Return pyarrow. Raises ConfigError if it is missing, or old and unsafe."""
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError("data=arrow needs pyarrow; install it with: pip install pyarrow") from error
    numbers = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdigit())
    if numbers < _SAFE_SINCE:
        raise ConfigError(f"data=arrow: pyarrow {pyarrow.__version__} runs code from files; install 14.0.1 or newer")
    return pyarrow


class ArrowFile(ABC):
    """An open file: its schema, and the mean number of bytes of a group of rows."""

    schema: Any
    group_bytes: float
    # True if a group takes no memory of its own: the file is mapped, unless it is compressed
    mapped: bool

    @abstractmethod
    def groups(self, column: str) -> Iterator[Any]:
        """Yield a column of each group of rows."""

    @abstractmethod
    def read(self, group: int, column: str) -> Any:
        """Return a column of a group of rows; of a struct that has a field `bytes` only that."""


class _ParquetFile(ArrowFile):
    """A Parquet file; its groups are row groups, which are decompressed as a whole."""

    mapped = False

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(full(path))
        self.schema = self._file.schema_arrow
        found = [self._file.metadata.row_group(group).total_byte_size for group in range(self._file.num_row_groups)]
        self.group_bytes = sum(found) / max(1, len(found))

    def groups(self, column: str) -> Iterator[Any]:
        """Yield a column of each row group."""
        return (self.read(group, column) for group in range(self._file.num_row_groups))

    def read(self, group: int, column: str) -> Any:
        """Return a column of a row group."""
        leaf = f"{column}.bytes" if _has_bytes(self.schema.field(column).type) else column
        return self._file.read_row_group(group, columns=[leaf], use_threads=False)[column]


class _RecordBatches(ArrowFile):
    """An Arrow file (Feather is one); its groups are record batches, mapped into memory."""

    mapped = True

    def __init__(self, path: Path) -> None:
        from pyarrow import ipc, memory_map

        self._source = memory_map(full(path))
        reader = ipc.open_file(self._source)
        self.schema, self._count = reader.schema, reader.num_record_batches
        self.group_bytes = self._source.size() / max(1, self._count)
        self._readers: dict[str, Any] = {}

    def groups(self, column: str) -> Iterator[Any]:
        """Yield a column of each record batch."""
        return (self.read(group, column) for group in range(self._count))

    def read(self, group: int, column: str) -> Any:
        """Return a column of a record batch; the others are not decompressed."""
        from pyarrow import ipc

        if column not in self._readers:
            self._readers[column] = ipc.open_file(self._source, options=_only(self.schema, column))
        return self._readers[column].get_batch(group).column(0)


class _Stream(ArrowFile):
    """An Arrow stream, as `datasets` keeps it in its cache: batches one after the other, mapped into memory."""

    mapped = True

    def __init__(self, path: Path) -> None:
        from pyarrow import ipc, memory_map

        self._path, self._source = path, memory_map(full(path))
        self.schema = ipc.open_stream(self._source).schema
        self.group_bytes = 0.0
        self._columns: dict[str, list[Any]] = {}

    def groups(self, column: str) -> Iterator[Any]:
        """Yield a column of each batch. Raises DataError if the batches are compressed: none can be read alone."""
        from pyarrow import ipc

        self._source.seek(0)
        whole = self._source.read_buffer()
        for batch in ipc.open_stream(whole, options=_only(self.schema, column)):
            found = batch.column(0)
            places = [part.address - whole.address for part in found.buffers() if part is not None and part.size]
            if not all(0 <= place < whole.size for place in places):
                raise DataError(
                    f"{printable(self._path)}: is a compressed stream; write it as an Arrow file or Parquet"
                )
            yield found

    def read(self, group: int, column: str) -> Any:
        """Return a column of a batch."""
        if column not in self._columns:
            self._columns[column] = list(self.groups(column))
        return self._columns[column][group]


def _only(schema: Any, column: str) -> Any:
    """Return the options to read one column."""
    from pyarrow import ipc

    return ipc.IpcReadOptions(included_fields=[schema.get_field_index(column)], use_threads=False)


def _has_bytes(kind: Any) -> bool:
    """Return True for a struct with a field `bytes`."""
    from pyarrow import types

    return bool(types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever pyarrow raises about a file into one line."""
    pyarrow = load_pyarrow()
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(
            f"{printable(path)}: cannot be read as Parquet or Arrow ({brief(' '.join(reason.split()))})"
        ) from error


def open_arrow(path: Path) -> ArrowFile:
    """Return an open file, of the format that its first bytes tell. Raises DataError for a damaged one."""
    with reading(path):
        with Path(full(path)).open("rb") as file:
            head = file.read(len(_FILE))
        if head.startswith(_PARQUET):
            found: ArrowFile = _ParquetFile(path)
        else:
            found = _RecordBatches(path) if head == _FILE else _Stream(path)
    names = found.schema.names
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{printable(path)}: two columns are named '{brief(min(twice))}'")
    return found


def class_names(schema: Any, column: str) -> list[str] | None:
    """Return the names of classes that Hugging Face's `datasets` keeps in a schema, None if there are none."""
    import json

    with suppress(ValueError, KeyError, TypeError, RecursionError):
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"]
        if feature["_type"] == "ClassLabel" and names and all(isinstance(name, str) and name for name in names):
            return list(names)
    return None
