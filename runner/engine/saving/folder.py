"""Run folders: creation, and `result.json` with the status of the run."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from runner import user_paths
from runner.engine.saving import storage
from runner.errors import CheckpointError, ConfigError, StorageError, one_line
from runner.schema import FolderName, NonNegative, NonNegativeInt, Pattern, PositiveInt, Range, TagName, check
from runner.status import Status

# In a result of schema 1 `loss` is the negative log-likelihood of the softmax, whatever the loss that was trained, and
# the scores of training examples, now `train_eval`, have the name `train`.
SCHEMA = 2
RESULT = "result.json"
# In the folder of an ensemble: its members (`runner.engine.saving.ensemble_file`)
ENSEMBLE = "ensemble.json"
# In a folder whose run was made again in another one: says by which and why
REPLACED = "replaced.json"
# Bytes of a `result.json`. A larger file is rejected before it is read.
_LIMIT = 1 << 24
# Bytes of an `environment.json`, which a user may have replaced; the names of 22,000 classes take a megabyte
_MAX_ENVIRONMENT = 1 << 24
_FingerprintId = Annotated[str, Pattern(r"[0-9a-f]{16}", "16 hex digits")]
_StatusWord = Annotated[Status, Pattern("|".join(Status), f"one of {', '.join(Status)}")]


class ResultLost(CheckpointError):
    """A run's `result.json` is missing, or a file that no version of runner wrote: the run may write it again."""


def within(root: Path, name: str) -> Path:
    """Return the path `root / name` after checking that it is inside `root`.

    Args:
        root: A folder.
        name: A relative path from the user or from a file, with parts separated by `/`.

    Raises:
        ConfigError: A part is not a valid file name (such as `..`), or a symbolic link leads out of `root`.
    """
    for part in name.split("/"):
        check("name", part, FolderName)
    path = root / name
    try:
        # Raises for a loop of links
        user_paths.exists(path)
        inside = user_paths.real(path).is_relative_to(user_paths.real(root))
    except ConfigError:
        inside = False
    if not inside:
        raise ConfigError(f"name: got '{name}', must lie in {storage.printable(root)} (a symbolic link leads out)")
    return path


def create(path: Path, *, only: bool = False) -> Path:
    """Create a new folder and return it: `path`, or `path-2`, `path-3`, ... if it exists.

    Processes that call it at the same time get different folders. With `only`, FileExistsError is raised instead.
    """
    # A loop of links is no name that is taken
    user_paths.exists(path, error=StorageError)
    with storage.folders_above(path):
        for free in candidates(path):
            try:
                storage.make_folder(free)
            except FileExistsError:
                if only:
                    raise
                continue
            return free
    raise AssertionError("`candidates` never ends")


def candidates(path: Path) -> Iterator[Path]:
    """Yield the paths to try, without end: `path`, `path-2`, `path-3`, ..."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


@dataclass(kw_only=True)
class Result:
    """The content of `result.json`. Non-finite numbers are written as null.

    A result of an older schema is written back in it, because its scores keep their meaning.

    Attributes:
        schema: The version of this form. In schema 1 `loss` is the negative log-likelihood of the softmax.
        status: The status of the run.
        exit: The exit code of the process; null while it runs.
        reason: Why the run ended, in one line; null after success.
        steps: The number of optimizer steps done.
        epochs: The number of epochs done.
        seconds: The wall time in seconds.
        scores: `{val: {best: {accuracy, loss, nll, step}, last: {...}}, train_eval: {...}, test: {...}}`.
        weights: The file of the selected weights, relative to the run folder.
        test_reads: How often the test split was evaluated.
        numerics: The versions of the numbers that the run was trained with, if it resumed with a newer version
            (`runner.numerics`); else the file has no such key.
        data: The fingerprints of the data that it was trained on, the last one last; no such key in older files.
        findings: The names of what was found at its end, such as FINETUNE_WORSE_THAN_PROBE; else no such key.
        snapshots: The weights files that `average=snapshots` kept, relative to the run folder, the first one first;
            no such key with other averages.
    """

    schema: Annotated[int, Range(1, SCHEMA)] = SCHEMA
    status: _StatusWord = Status.RUNNING
    exit: int | None = None
    reason: str | None = None
    steps: NonNegativeInt = 0
    epochs: NonNegative = 0.0
    seconds: NonNegative = 0.0
    scores: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    test_reads: NonNegativeInt = 0
    numerics: list[PositiveInt] | None = None
    data: list[_FingerprintId] | None = None
    findings: list[TagName] | None = None
    snapshots: list[str] | None = None

    def to_json(self) -> bytes:
        """Return the bytes of the file; raise ValueError if a field is invalid."""
        reason = None if self.reason is None else one_line(self.reason)
        record = {
            **asdict(self),
            "reason": reason,
            "scores": _renamed_splits(_numbers(self.scores), self.schema, reading=False),
        }
        record = {name: value for name, value in record.items() if value is not None or name not in _OPTIONAL}
        try:
            _checked(record)
        except ConfigError as error:
            raise ValueError(f"result: {error}") from error
        return json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"


# Fields that are left out if they are None
_OPTIONAL = {"numerics", "data", "findings", "snapshots"}
# The types of the fields; `_numbers` checks the scores.
_FIELD_TYPES = {name: kind for name, kind in get_type_hints(Result, include_extras=True).items() if name != "scores"}


def write_result(folder: Path, result: Result) -> None:
    """Write `result.json` into a run folder atomically."""
    storage.write_atomic(folder / RESULT, result.to_json())


def read_result(folder: Path) -> Result:
    """Return the content of `result.json`.

    Raises ResultLost if it is missing or malformed, CheckpointError if it is of a later schema or is no readable file.
    """
    path, record = folder / RESULT, None
    try:
        record = json.loads(storage.read(path, _LIMIT))
        result = _checked(record)
        for name in (*([] if result.weights is None else [result.weights]), *(result.snapshots or ())):
            within(folder, name)
    except OSError as error:
        kind = ResultLost if isinstance(error, FileNotFoundError) else CheckpointError
        raise kind(f"{storage.printable(path)}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError, ConfigError) as error:
        kind = CheckpointError if _is_later(record) else ResultLost
        raise kind(f"{storage.printable(path)}: malformed ({ascii(str(error))[1:-1][:160]})") from error
    return result


def _is_later(record: Any) -> bool:
    """Return True if a later version of runner wrote a result."""
    schema = record.get("schema") if isinstance(record, dict) else None
    return type(schema) is int and schema > SCHEMA


def _checked(record: Any) -> Result:
    """Return a result from its JSON object; raise ConfigError or TypeError for a wrong key, type or value."""
    names = {item.name for item in fields(Result)}
    if type(record) is not dict or record.keys() | _OPTIONAL != names:
        raise ConfigError(f"not a result of schema 1 to {SCHEMA}")
    if type(record["scores"]) is not dict:
        raise ConfigError("scores: must be a mapping")
    values = {name: check(name, record[name], kind) for name, kind in _FIELD_TYPES.items() if name in record}
    values["status"] = Status(values["status"])
    # Versions before this one did not limit it
    values["reason"] = None if values["reason"] is None else one_line(values["reason"])
    return Result(**values, scores=_renamed_splits(_numbers(record["scores"]), values["schema"], reading=True))


def _renamed_splits(scores: dict[str, Any], schema: int, *, reading: bool) -> dict[str, Any]:
    """Return the scores of a file with the present names of splits, or for writing with those of the file's schema."""
    if schema > 1:
        return scores
    old, new = ("train", "train_eval") if reading else ("train_eval", "train")
    return {new if split == old else split: found for split, found in scores.items()}


def _numbers(scores: Any) -> Any:
    """Return nested scores with None for non-finite numbers; raise TypeError for a value that is not a number."""
    if isinstance(scores, Mapping):
        return {str(name): _numbers(value) for name, value in scores.items()}
    if isinstance(scores, bool) or not isinstance(scores, (int, float, type(None))):
        raise TypeError(f"a score is a {type(scores).__name__}")
    return scores if scores is None or math.isfinite(scores) else None


def read_environment(folder: Path) -> dict[str, Any]:
    """Return what a run recorded about its code and machine, empty if it recorded nothing."""
    try:
        content = json.loads(storage.read(folder / "environment.json", _MAX_ENVIRONMENT))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
