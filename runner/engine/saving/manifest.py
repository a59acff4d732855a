"""The manifest, which commits a checkpoint: its files with sizes and checksums, and a checksum of the manifest itself.

A manifest may be damaged or malicious. It is checked before any file that it lists is opened and before memory is
allocated.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.engine.saving import storage
from runner.errors import CheckpointError

# The folder of the checkpoints in the run folder.
FOLDER = "checkpoints"
FORMAT = 1
# Entry of `meta` for the versions of a model's modules (`runner.engine.state_dict`)
VERSIONS = "versions"
# Bytes of a manifest. That of a ResNet-50 with Adam has 60 kB.
_LIMIT = 64 << 20
_STEP = r"(?P<step>[0-9]{8,12})"
NAME = re.compile(rf"{_STEP}\.json")
DATA_NAME = re.compile(rf"{_STEP}(\.[0-9]{{1,3}})?\.(?P<role>weights|state)\.safetensors")
_LOG_NAME = re.compile(r"(?!\.)[A-Za-z0-9._=,+-]{1,255}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WITH_CHECKSUM = re.compile(rb'(?P<body>\{.*),"sha256":"(?P<digest>[0-9a-f]{64})"\}\n', re.DOTALL)


class NewerFormat(CheckpointError):
    """A valid checkpoint that a later version wrote. It is an error: an older checkpoint would lose steps."""


@dataclass(frozen=True)
class File:
    """A data file as the manifest lists it; `size` is in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        step: The number of optimizer steps done.
        weights: The file of the weights.
        state: The file of the other tensors; None if there are weights only, which a run cannot resume from.
        logs: The length in bytes of each log file at this step.
        tree: The state without its tensors (see `state.py`).
        meta: What the caller stored beside the state.
    """

    step: int
    weights: File
    state: File | None
    logs: dict[str, int]
    tree: dict[str, Any]
    meta: dict[str, Any]

    @property
    def files(self) -> tuple[File, ...]:
        """The data files."""
        return (self.weights,) if self.state is None else (self.weights, self.state)


def name_of(step: int) -> str:
    """Return the file name of the manifest of a step."""
    return f"{step:08d}.json"


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as one line of JSON with its checksum; raise CheckpointError for a malformed log entry."""
    _check_logs(manifest.logs, name_of(manifest.step))
    record = {
        "format": FORMAT,
        "step": manifest.step,
        "files": [asdict(file) for file in manifest.files],
        "logs": manifest.logs,
        "state": manifest.tree,
        "meta": manifest.meta,
    }
    body = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + f',"sha256":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def read(folder: Path, step: int) -> Manifest:
    """Return the manifest of a step; raise CheckpointError if it is missing or damaged."""
    name = name_of(step)
    try:
        return _decode(storage.read(folder / name, _LIMIT), step)
    except OSError as error:
        raise CheckpointError(f"{name}: {error.strerror}") from error


def _decode(data: bytes, step: int) -> Manifest:
    """Return the manifest of a step from its bytes."""
    name = name_of(step)
    record = _verified(data, name)
    written = record.get("format")
    if type(written) is int and written > FORMAT:
        raise NewerFormat(f"{name}: written in format {written} by a later version, this one reads format {FORMAT}")
    for key, kind in {"files": list, "logs": dict, "state": dict, "meta": dict}.items():
        _require(type(record.get(key)) is kind, name, f"'{key}' must be a {kind.__name__}")
    _require(type(written) is int and written == FORMAT, name, "unknown format")
    _require(type(record.get("step")) is int and record["step"] == step, name, f"is not of step {step}")
    _check_logs(record["logs"], name)
    files = {_role_of(file, step, name): file for file in record["files"]}
    _require(
        len(record["files"]) == len(files) and set(files) in ({"weights", "state"}, {"weights"}),
        name,
        "must list one weights and at most one state file",
    )
    parts = {role: File(file["name"], file["size"], file["sha256"]) for role, file in files.items()}
    weights, state = parts["weights"], parts.get("state")
    return Manifest(step, weights, state, logs=record["logs"], tree=record["state"], meta=record["meta"])


def _check_logs(logs: dict[str, int], name: str) -> None:
    """Raise CheckpointError if the name or the length of a log file is malformed."""
    for log, size in logs.items():
        _require(bool(_LOG_NAME.fullmatch(log)) and type(size) is int and size >= 0, name, "a log is malformed")


def _verified(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object of a manifest after verifying its checksum."""
    match = _WITH_CHECKSUM.fullmatch(data)
    if match is None or hashlib.sha256(match["body"]).hexdigest() != match["digest"].decode():
        raise CheckpointError(f"{name}: damaged (does not match its own checksum)")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: not JSON") from error
    return dict(record)


def _role_of(file: Any, step: int, name: str) -> str:
    """Return the role of a file entry, `weights` or `state`; raise CheckpointError if it is malformed."""
    _require(type(file) is dict and set(file) == {"name", "size", "sha256"}, name, "a file entry is malformed")
    match = DATA_NAME.fullmatch(file["name"]) if type(file["name"]) is str else None
    if match is None or int(match["step"]) != step:
        raise CheckpointError(f"{name}: lists a file of another step, {ascii(file['name'])[:80]}")
    _require(type(file["size"]) is int and file["size"] >= 0, name, "a file size is malformed")
    _require(type(file["sha256"]) is str and bool(_SHA256.fullmatch(file["sha256"])), name, "a sha256 is malformed")
    return match["role"]


def _require(condition: bool, name: str, problem: str) -> None:
    """Raise CheckpointError with the text `problem` unless the condition is true."""
    if not condition:
        raise CheckpointError(f"{name}: {problem}")


def versions_in(listed: Manifest) -> dict[str, int] | None:
    """Return the versions of modules in a manifest, None if it has none; raise CheckpointError if malformed."""
    versions = listed.meta.get(VERSIONS)
    if versions is None:
        return None
    if type(versions) is not dict or any(type(version) is not int for version in versions.values()):
        raise CheckpointError(f"{name_of(listed.step)}: the versions of modules are malformed")
    return versions
