"""Run folders: created, locked by one process, and left with a result that says how the run ended."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, get_type_hints

from runner.engine.saving import storage
from runner.engine.world import ALONE, World
from runner.errors import CheckpointError, ConfigError, Locked
from runner.schema import FolderName, NonNegative, NonNegativeInt, Pattern, PositiveInt, check
from runner.status import Status

_SCHEMA = 1
RESULT = "result.json"
LOCK = ".lock"
_LIMIT = 1 << 20  # bytes of a result
_STARTING = {
    LOCK,
    RESULT,
    "config.yaml",
    "overrides.yaml",
    "environment.json",
}  # files that exist before the first step
_HOLDER = re.compile(rb"(?P<pid>[0-9]+) (?P<host>[A-Za-z0-9._-]+)\n")
_StatusWord = Annotated[Status, Pattern("|".join(Status), f"one of {', '.join(Status)}")]


def within(root: Path, name: str) -> Path:
    """Return the path of `name` (parts joined by /) below `root`.

    Every name from the user or from a file becomes a path here. Raises ConfigError if a part is no plain name, or if a
    symbolic link leads out of `root`.
    """
    for part in name.split("/"):
        check("name", part, FolderName)
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of symbolic links
        inside = False
    if not inside:
        raise ConfigError(f"name: got '{name}', must lie in {storage.shown(root)} (a symbolic link leads out)")
    return path


def create(path: Path) -> Path:
    """Make a new folder and return it: `path`, or `path-2`, `path-3`, ... if it exists.

    Processes that call this at the same instant get different folders.
    """
    missing = [parent for parent in path.parents if not parent.is_dir()]
    for parent in reversed(missing):
        with contextlib.suppress(FileExistsError):
            storage.make_folder(parent)
    for free in candidates(path):
        try:
            storage.make_folder(free)
        except FileExistsError:
            continue
        return free
    raise AssertionError("counting has no end")


def candidates(path: Path) -> Iterator[Path]:
    """Yield the names to try, without end."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


class _Lock:
    """A run folder locked by this process until `release`, the end of a `with`, or the death of the process."""

    def __init__(self, file: int | None) -> None:
        self._file = file

    def release(self) -> None:
        """Unlock the folder; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def lock(path: Path, world: World = ALONE) -> _Lock:
    """Lock a run folder for this run; raises Locked, with the holder's pid and host, if another run has it.

    The kernel releases the lock (flock) when this process and its forked children end, so no lock is ever stale.
    Of several processes the main one holds it, and all of them raise what it raises.
    """
    held = _Lock(None)

    def take() -> str:
        held._file = _locked_file(path)
        return ""

    world.from_main(take)
    return held


def _locked_file(path: Path) -> int:
    """Return the descriptor of the lock file, locked."""
    with storage.refusing(path / LOCK):
        file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = _holder_in(file)
            os.close(file)
            raise Locked(f"{storage.shown(path)}: locked by {holder}") from error
        except OSError:
            os.close(file)
            raise
    return file


def _holder_in(file: int) -> str:
    """Return the holder that a lock file names; for an instant after locking it names none."""
    match = _HOLDER.fullmatch(os.pread(file, 300, 0))
    return f"pid {match['pid'].decode()} on {match['host'].decode()}" if match else "another process"


@dataclass(kw_only=True)
class Result:
    """The content of `result.json`: how a run stands or ended. Non-finite numbers become null."""

    status: _StatusWord = Status.RUNNING
    exit: int | None = None  # the process's exit code, null while it runs
    reason: str | None = None  # one line, null after success
    steps: NonNegativeInt = 0
    epochs: NonNegative = 0.0
    seconds: NonNegative = 0.0
    scores: dict[str, Any] = field(default_factory=dict)  # {val: {best: {accuracy, loss, step}, last}, test: {...}}
    weights: str | None = None  # file of the selected weights, relative to the folder
    test_reads: NonNegativeInt = 0
    # Versions that it was trained with, where it went on over a change of formulas (`runner.numerics`); else left out
    numerics: list[PositiveInt] | None = None

    def to_json(self) -> bytes:
        """Return the bytes of the file; raises ValueError if a field is invalid."""
        record = {"schema": _SCHEMA, **asdict(self), "scores": _numbers(self.scores)}
        if self.numerics is None:
            del record["numerics"]
        try:
            _checked(record)
        except ConfigError as error:
            raise ValueError(f"result: {error}") from error
        return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


_OPTIONAL = {"numerics"}
_FORM = {name: kind for name, kind in get_type_hints(Result, include_extras=True).items() if name != "scores"}


def write_result(folder: Path, result: Result) -> None:
    """Write `result.json` into a run folder, atomically."""
    storage.write_atomic(folder / RESULT, result.to_json())


def read_result(folder: Path) -> Result:
    """Return the content of `result.json`; raises CheckpointError if it is missing, damaged or of another version."""
    path = folder / RESULT
    try:
        result = _checked(json.loads(storage.read(path, _LIMIT)))
        if result.weights is not None:
            within(folder, result.weights)
    except OSError as error:
        raise CheckpointError(f"{storage.shown(path)}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{storage.shown(path)}: malformed ({ascii(str(error))[1:-1][:160]})") from error
    return result


def _checked(record: Any) -> Result:
    """Return a result from its JSON object, with each field checked."""
    names = {"schema", *(item.name for item in fields(Result))}
    known = type(record) is dict and record.keys() | _OPTIONAL == names
    if not known or record["schema"] != _SCHEMA:
        raise ConfigError(f"is no result of schema {_SCHEMA}")
    if type(record["scores"]) is not dict:
        raise ConfigError("scores: must be a mapping {a: b}")
    values = {name: check(name, record[name], kind) for name, kind in _FORM.items() if name in record}
    values["status"] = Status(values["status"])
    return Result(**values, scores=_numbers(record["scores"]))


def _numbers(scores: Any) -> Any:
    """Return nested scores with None for non-finite numbers; raises TypeError for anything but numbers."""
    if isinstance(scores, Mapping):
        return {str(name): _numbers(value) for name, value in scores.items()}
    if isinstance(scores, bool) or not isinstance(scores, (int, float, type(None))):
        raise TypeError(f"a score is a {type(scores).__name__}")
    return scores if scores is None or math.isfinite(scores) else None


def discard(path: Path) -> bool:
    """Remove a run folder without a step or foreign files, and return whether it was removed."""
    found = storage.names(path)
    if not _STARTING.issuperset(found) or (RESULT in found and read_result(path).steps):
        return False
    for name in found:
        storage.remove(path / name)
    with storage.refusing(path):
        storage.disk.rmdir(path)
    return True
