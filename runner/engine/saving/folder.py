"""Run folders: made once, locked for life, left with a result that says how the run ended."""

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
from runner.errors import CheckpointError, ConfigError, Locked
from runner.schema import FolderName, NonNegative, NonNegativeInt, Pattern, PositiveInt, check
from runner.status import Status

SCHEMA = 1
RESULT = "result.json"
LOCK = ".lock"
LIMIT = 1 << 20  # bytes of a result
STARTING = {LOCK, RESULT, "config.yaml", "overrides.yaml", "environment.json"}  # what is there before the first step
HOLDER = re.compile(rb"(?P<pid>[0-9]+) (?P<host>[A-Za-z0-9._-]+)\n")
_StatusWord = Annotated[Status, Pattern("|".join(Status), f"one of {', '.join(Status)}")]


def within(root: Path, name: str) -> Path:
    """Return the path of `name` (parts joined by /) below `root`; ConfigError if a part is no plain name or leaves it.

    The only way from a word that was given or read to a path.
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
    """Make a new folder and return it: `path`, or `path-2`, `path-3`, ... if that is taken.

    Of several processes that ask at the same instant each gets its own.
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
    """Give the names to try, without end."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


class Lock:
    """A run folder held by this process until `release`, the end of a `with`, or its death, however it dies."""

    def __init__(self, file: int) -> None:
        self._file: int | None = file

    def release(self) -> None:
        """Let others take the folder; twice is as good as once."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def lock(path: Path) -> Lock:
    """Take a run folder for this process; raises Locked, with the holder's pid and host, if another one has it.

    The kernel frees the lock (flock) when this process and the children that it forked are gone, so none is ever stale.
    """
    with storage.refusing(path / LOCK):
        file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = holder_in(file)
            os.close(file)
            raise Locked(f"{storage.shown(path)}: locked by {holder}") from error
        except OSError:
            os.close(file)
            raise
    return Lock(file)


def holder_in(file: int) -> str:
    """Return who says in a lock file that it is theirs (it says nothing yet for an instant)."""
    match = HOLDER.fullmatch(os.pread(file, 300, 0))
    return f"pid {match['pid'].decode()} on {match['host'].decode()}" if match else "another process"


@dataclass(kw_only=True)
class Result:
    """How a run stands or ended: what `result.json` holds. Numbers that are not finite become null in it."""

    status: _StatusWord = Status.RUNNING
    exit: int | None = None  # the process's exit code, null while it runs
    reason: str | None = None  # in one line, where it is not plain success
    steps: NonNegativeInt = 0
    epochs: NonNegative = 0.0
    seconds: NonNegative = 0.0
    scores: dict[str, Any] = field(default_factory=dict)  # {val: {best: {accuracy, loss, step}, last}, test: {...}}
    weights: str | None = None  # the selected ones, relative to the folder
    test_reads: NonNegativeInt = 0
    # Versions that it was trained with, where it went on over a change of formulas (`runner.numerics`); else left out
    numerics: list[PositiveInt] | None = None

    def to_json(self) -> bytes:
        """Return the file's bytes; ValueError if a field is not what it must be."""
        record = {"schema": SCHEMA, **asdict(self), "scores": numbers(self.scores)}
        if self.numerics is None:
            del record["numerics"]
        try:
            checked(record)
        except ConfigError as error:
            raise ValueError(f"result: {error}") from error
        return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


OPTIONAL = {"numerics"}
FORM = {name: kind for name, kind in get_type_hints(Result, include_extras=True).items() if name != "scores"}


def write_result(folder: Path, result: Result) -> None:
    """Put `result.json` into a run folder, atomically."""
    storage.write_atomic(folder / RESULT, result.to_json())


def read_result(folder: Path) -> Result:
    """Return what `result.json` says; CheckpointError if it is missing, damaged or of another version."""
    path = folder / RESULT
    try:
        result = checked(json.loads(storage.read(path, LIMIT)))
        if result.weights is not None:
            within(folder, result.weights)
    except OSError as error:
        raise CheckpointError(f"{storage.shown(path)}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{storage.shown(path)}: malformed ({ascii(str(error))[1:-1][:160]})") from error
    return result


def checked(record: Any) -> Result:
    """Return a result from its JSON object, each field checked."""
    names = {"schema", *(item.name for item in fields(Result))}
    known = type(record) is dict and record.keys() | OPTIONAL == names
    if not known or record["schema"] != SCHEMA:
        raise ConfigError(f"is no result of schema {SCHEMA}")
    if type(record["scores"]) is not dict:
        raise ConfigError("scores: must be a mapping {a: b}")
    values = {name: check(name, record[name], kind) for name, kind in FORM.items() if name in record}
    values["status"] = Status(values["status"])
    return Result(**values, scores=numbers(record["scores"]))


def numbers(scores: Any) -> Any:
    """Return nested scores with null for what is not finite; TypeError for what is no number."""
    if isinstance(scores, Mapping):
        return {str(name): numbers(value) for name, value in scores.items()}
    if isinstance(scores, bool) or not isinstance(scores, (int, float, type(None))):
        raise TypeError(f"a score is a {type(scores).__name__}")
    return scores if scores is None or math.isfinite(scores) else None


def discard(path: Path) -> bool:
    """Remove a run folder that no step was made in, and tell whether it was: anything not ours in it keeps it."""
    found = storage.names(path)
    if not STARTING.issuperset(found) or (RESULT in found and read_result(path).steps):
        return False
    for name in found:
        storage.remove(path / name)
    with storage.refusing(path):
        storage.disk.rmdir(path)
    return True
