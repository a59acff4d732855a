"""Sources of weights that `init_from` names: run folders, files, published weights; and the digest of each.

The SHA-256 of the tensors is part of a run's identity. It is kept under the state of the files that hold them, so that
most commands find it without opening a file. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from runner import user_paths
from runner.engine.file_digests import cache_home, is_settled, state_of, write_cache
from runner.engine.fingerprint import digest
from runner.engine.saving.ensemble_file import is_ensemble
from runner.engine.saving.folder import ENSEMBLE, read_result, within
from runner.engine.saving.manifest import DATA_NAME, FOLDER, name_of
from runner.engine.saving.storage import printable, read
from runner.errors import ConfigError, brief

KEY = "init_from"
# The teacher of a distillation
TEACHER = "distillation.teacher"
_SAFETENSORS = ".safetensors"
# Files of torch, which are read with weights_only=True
_TORCH = (".pt", ".pth")
# Names of torchvision's weights, as in IMAGENET1K_V1 and DEFAULT
_NAME = re.compile(r"DEFAULT|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_EXPECTED = "a run folder, a .safetensors or .pt file, or the name of published weights (IMAGENET1K_V1)"
# Version of the digest; raise it when what is digested changes
_SCHEME = 1
_MAX_BYTES = 1 << 12


class Source(NamedTuple):
    """Where weights come from.

    Attributes:
        kind: `run` (a run folder), `file` (tensors by name), `name` (published weights of the model) or `ensemble`
            (the folder of one, a teacher only).
        text: The value of `init_from`.
        file: The file that holds the tensors; None for published weights, whose file torchvision knows.
    """

    kind: Literal["run", "file", "name", "ensemble"]
    text: str
    file: Path | None = None


def _is_published(text: str) -> bool:
    """Return True if a value of `init_from` is the name of published weights; a folder of that name is `./NAME`."""
    return _NAME.fullmatch(text) is not None


def comes_with_own_parts(text: str | None) -> bool:
    """Return True for weights of another library's model: they were trained with its own norms and activations.

    Those of a run were trained with the parts that its config chose.
    """
    return text is not None and (_is_published(text) or text.endswith((_SAFETENSORS, *_TORCH)))


def find_source(text: str) -> Source:
    """Return what a value of `init_from` names; raises ConfigError if it is none of them, or has no weights yet."""
    if _is_published(text):
        return Source("name", text)
    if user_paths.is_dir(text, key=KEY):
        return _find_run(text)
    if not user_paths.exists(text, key=KEY):
        raise ConfigError(f"{KEY}: no file or folder at {brief(text)}; expected {_EXPECTED}")
    if not user_paths.is_file(text, key=KEY) or not text.endswith((_SAFETENSORS, *_TORCH)):
        raise ConfigError(f"{KEY}: got '{brief(text)}'; expected {_EXPECTED}")
    return Source("file", text, Path(text))


def _find_run(text: str, *, key: str = KEY, expected: str = _EXPECTED) -> Source:
    """Return the run in a folder, with the file of the weights that it selected, averaged if it averages.

    Args:
        text: The folder.
        key: The key of the config that names it, for messages.
        expected: What the key may name.

    Raises:
        ConfigError: There is no such run, or it has no weights.
    """
    folder = Path(text)
    if not user_paths.is_file(folder / "config.yaml", key=key):
        sweep = user_paths.is_file(folder / "sweep.yaml", key=key)
        hint = "name one of the runs in it" if sweep else "it has no config.yaml"
        raise ConfigError(f"{key}: got '{printable(folder)}'; expected {expected} ({hint})")
    if user_paths.is_file(folder / ENSEMBLE, key=key):
        members = "one of its members, or the run in members/ if it is a soup"
        raise ConfigError(f"{key}: got '{printable(folder)}', an ensemble; expected one model: {members}")
    result = read_result(folder)
    if result.weights is None and result.status.finished:
        raise ConfigError(f"{key}: {printable(folder)} has no weights any more, because of keep=none")
    if result.weights is None:
        files = ", or name one of its files in checkpoints/" if key == KEY else ""
        raise ConfigError(
            f"{key}: {printable(folder)} has not selected its weights yet (its status is {result.status}); "
            f"resume it first{files}"
        )
    return Source("run", text, within(folder, result.weights))


class _State(NamedTuple):
    """The state of the files of a source: a key that changes with them, and whether every change will change it."""

    key: str
    settled: bool


def state_of_source(source: Source) -> _State | None:
    """Return the state of the files that hold the tensors; None for published weights, which have none of their own."""
    if source.file is None:
        return None
    now, states, settled = time.time_ns(), list[bytes](), True
    for path in (source.file, *_beside(source.file)):
        status = user_paths.status(path, key=KEY)
        if status is None and path == source.file:
            raise ConfigError(f"{KEY}: no file at {printable(path)}")
        if status is None:
            continue
        states.append(state_of(user_paths.absolute(path), status))
        settled = settled and is_settled(status, now)
    return _State(digest([repr((_SCHEME, source.kind)), *states]), settled)


def _beside(file: Path) -> list[Path]:
    """Return the manifest of a checkpoint's file, which says whether the file is damaged."""
    match = DATA_NAME.fullmatch(file.name)
    return [file.with_name(name_of(int(match["step"])))] if match and file.parent.name == FOLDER else []


def recall_digest(state: _State | None) -> str | None:
    """Return the SHA-256 that was kept for a state, None if there is none."""
    if state is None or not state.settled:
        return None
    try:
        found = json.loads(read(_place(state), _MAX_BYTES))
        os.utime(user_paths.full(_place(state)))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64}", found) else None


def remember_digest(state: _State | None, found: str) -> None:
    """Keep the SHA-256 of a state, unless a change of the files could go unnoticed."""
    if state is not None and state.settled:
        write_cache(_place(state), json.dumps(found).encode())


def _place(state: _State) -> Path:
    return cache_home() / f"{state.key}.weights.json"


def find_teacher(text: str) -> Source:
    """Return the run or ensemble that `distillation.teacher` names; ConfigError if it is none, or has no weights."""
    folder = Path(text)
    if is_ensemble(folder, key=TEACHER):
        return Source("ensemble", text, folder / ENSEMBLE)
    return _find_run(text, key=TEACHER, expected="the folder of a finished run or of an ensemble")


def teacher_of(config: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """Return the teacher that a config names with its SHA-256 if known; None without a teacher.

    Raises ConfigError if the config asks for a teacher and names none.
    """
    chosen = config[TEACHER.partition(".")[0]]
    if "teacher" not in chosen:
        return None
    if chosen["teacher"] is None:
        raise ConfigError(f"{TEACHER}: got null; expected the folder of a finished run or of an ensemble")
    return chosen["teacher"], chosen["teacher_sha256"]


def with_teacher_digest(config: Mapping[str, Any], found: str | None) -> dict[str, Any]:
    """Return a config that names a teacher, with the SHA-256 of the teacher's tensors."""
    group = TEACHER.partition(".")[0]
    return {**config, group: {**config[group], "teacher_sha256": found}}


def wanted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that says which tensors its run starts from."""
    return {key: config[key] for key in (KEY, "init_download", "model")}
