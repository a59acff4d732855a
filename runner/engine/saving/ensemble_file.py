"""`ensemble.json`: the members of an ensemble and how their predictions are combined. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from runner import user_paths
from runner.engine.saving import storage
from runner.engine.saving.folder import ENSEMBLE, within
from runner.errors import CheckpointError, ConfigError, escaped, wrong
from runner.schema import Pattern, Positive, Range, Sha256, check

_SCHEMA = 1
# How predictions of members become one
Combine = Literal["probabilities", "logits"]
# Bytes of a file: that of 1,000 members has 300 kB
_LIMIT = 1 << 24
# Weights are quotients, and the sum of many is rounded
_SUM_TOLERANCE = 1e-6
_Digest = Annotated[str, Pattern(r"[0-9a-f]{8}", "8 hex digits")]
_Share = Annotated[float, Range(0, 1, open_low=True)]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of an ensemble.

    Attributes:
        path: Its run folder, relative to the folder of the ensemble.
        weights: The file of its weights, relative to its run folder.
        sha256: The SHA-256 of that file.
        config: The digest of its config (`runner.hashes.content_of`).
        weight: Its share of the combined prediction; those of all members sum to 1.
    """

    path: str
    weights: str
    sha256: str
    config: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `ensemble.json`.

    Attributes:
        members: The members.
        combine: What of their predictions is averaged.
        temperature: The number by which the combined log-probabilities are divided; 1 leaves them as they are.
        predict: The prediction method of all members; None: each has that of its run.
        about: How the members were chosen, and scores; for the reader.
    """

    members: tuple[Member, ...]
    combine: Combine
    temperature: float
    predict: dict[str, Any] | None
    about: dict[str, Any] = field(default_factory=dict)


def digest_of(manifest: Manifest) -> str:
    """Return the SHA-256 of what an ensemble computes: checksums and weights of its members, how they are combined."""
    members = [[member.sha256, member.config, member.weight] for member in manifest.members]
    text = json.dumps([members, manifest.combine, manifest.temperature])
    return hashlib.sha256(text.encode()).hexdigest()


def is_ensemble(folder: Path, *, key: str) -> bool:
    """Return True if a folder is that of an ensemble; `key` names it in an error."""
    return user_paths.is_file(folder / ENSEMBLE, key=key)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `ensemble.json` into a folder atomically."""
    record = {"schema": _SCHEMA, **asdict(manifest)}
    storage.write_atomic(folder / ENSEMBLE, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Return the content of `ensemble.json`; raises CheckpointError if it cannot be read or is malformed."""
    path = folder / ENSEMBLE
    try:
        return _checked(json.loads(storage.read(path, _LIMIT)))
    except OSError as error:
        raise CheckpointError(f"{storage.printable(path)}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else ascii(str(error))[1:-1][:160]
        raise CheckpointError(f"{storage.printable(path)}: malformed ({reason})") from error


def _checked(record: Any) -> Manifest:
    """Return a manifest from its JSON object; raises ConfigError, KeyError or TypeError for a wrong one."""
    schema = record["schema"]
    if type(schema) is not int or schema != _SCHEMA:
        raise ConfigError(f"schema: got {str(schema)[:20]}; this version of runner reads {_SCHEMA}")
    members = tuple(_checked_member(index, each) for index, each in enumerate(record["members"]))
    if not members:
        raise ConfigError("members: got none, must have one")
    total = math.fsum(member.weight for member in members)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ConfigError(f"members: their weights sum to {total:.6g}, must sum to 1")
    if record["combine"] not in get_args(Combine):
        raise wrong("combine", str(record["combine"]), f"one of {', '.join(get_args(Combine))}")
    predict = record["predict"]
    if predict is not None and not (isinstance(predict, dict) and isinstance(predict.get("name"), str)):
        raise ConfigError("predict: must be a prediction method, or null")
    about = record["about"]
    return Manifest(
        members=members,
        combine=record["combine"],
        temperature=check("temperature", record["temperature"], Positive),
        predict=predict,
        about=about if isinstance(about, dict) else {},
    )


def _checked_member(index: int, record: Mapping[str, Any]) -> Member:
    """Return a member from its JSON object."""
    kinds = {"path": str, "weights": str, "sha256": Sha256, "config": _Digest, "weight": _Share}
    return Member(**{name: check(f"members[{index}].{name}", record[name], kind) for name, kind in kinds.items()})


def member_folder(folder: Path, member: Member) -> Path:
    """Return the run folder of a member; CheckpointError if it is not there or has no such weights."""
    found = folder / member.path
    where = f"{storage.printable(folder / ENSEMBLE)}: the member '{escaped(member.path)}'"
    way = "restore it, or make the ensemble again (task.copy=true keeps copies of its members)"
    if not user_paths.is_dir(found, key=ENSEMBLE, error=CheckpointError):
        raise CheckpointError(f"{where} is missing; {way}")
    try:
        file = within(found, member.weights)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if not user_paths.is_file(file, key=ENSEMBLE, error=CheckpointError):
        raise CheckpointError(f"{where} lacks its weights {escaped(member.weights)}; {way}")
    if sha256_of_file(file) != member.sha256:
        raise CheckpointError(f"{where}: {escaped(member.weights)} has changed (its SHA-256 is another); {way}")
    return found


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file; raises CheckpointError if it cannot be read."""
    try:
        return storage.sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{storage.printable(path)}: {error.strerror}") from error
