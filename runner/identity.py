"""The state of a data set's files, and the fingerprint that belongs to it: known without a file being read.

A run keeps the fingerprint of its data under the state of the files that it read (`runner.engine.file_digests` says
what a state is). While the state is the same a later run, and a sweep that looks for finished trials, find the
fingerprint without a file being opened. Imports no torch.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.engine.file_digests import cache_home, is_settled, state_of, write_cache
from runner.engine.fingerprint import Fingerprint, digest, from_record
from runner.engine.saving.storage import read
from runner.errors import ConfigError
from runner.keys import knob_marks, marked_keys
from runner.plain_yaml import conf_folder
from runner.roles import NO_MARKS, Aspect, Marks, Role
from runner.user_folders import expand_home

_Config = Mapping[str, Any]
# Version of this cache, and of what identifies our data sets: raise it when either changes
_SCHEME = 1
# Bytes of a fingerprint; 22,000 classes take a megabyte
_MAX_BYTES = 1 << 26
# Folders below a data set's path whose links to folders are followed: root/<split>/<class>
_LINKED_LEVELS = 3
# Packages that data sets without files come from
_PACKAGES = ("numpy", "scikit-learn")


@dataclass(frozen=True)
class _DataState:
    """The state of a data set: a key that changes with its files, and whether every change will change it."""

    key: str
    settled: bool
    has_files: bool


def data_state(config: _Config) -> _DataState | None:
    """Return the state of the data that a config reads, None for a user's own data set: it may read anything."""
    data = config["data"]
    if not (conf_folder() / "data" / f"{data['name']}.yaml").is_file():
        return None
    marked = knob_marks("data", data, config)
    knobs = {knob: value for knob, value in sorted(data.items()) if _identifies(marked.get(knob, NO_MARKS))}
    parts: list[str | bytes] = [repr((_SCHEME, knobs))]
    settled, now = True, time.time_ns()
    paths = list(data_paths(config))
    for key, path, pattern in paths:
        parts.append(f"{key} {user_paths.absolute(path)}")
        files = list(_files(path, pattern))
        parts.append(b"".join(state_of(name, status) for name, status in files))
        settled = settled and all(is_settled(status, now) for _, status in files)
    for name, status in _named_files(data):
        parts.append(state_of(name, status))
        settled = settled and is_settled(status, now)
    if not paths:
        parts.append(repr([_version(package) for package in _PACKAGES]))
    return _DataState(digest(parts), settled, bool(paths))


def data_paths(config: _Config) -> Iterator[tuple[str, Path, str]]:
    """Yield key, path and pattern of what the data set of a config reads."""
    for holder, name, key, marks in marked_keys(dict(config), ["data"]):
        if marks.role is Role.PATH and marks.path and marks.path.reads and isinstance(holder[name], str):
            yield key, expand_home(holder[name]), marks.path.reads


def _named_files(data: _Config) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of the files that knobs name and that may lie elsewhere, such as a table of labels."""
    for _, value in sorted(data.items()):
        try:
            path = user_paths.full(expand_home(value)) if isinstance(value, str) else None
            status = os.stat(path) if path else None  # noqa: PTH116
        except (OSError, ValueError, RuntimeError):
            continue
        if status and stat.S_ISREG(status.st_mode):
            yield value, status


def _identifies(marks: Marks) -> bool:
    """Return True if a knob of a data set may change which examples it holds."""
    return marks.role is Role.EXPERIMENT and Aspect.TRAINING not in marks.aspects


def _version(package: str) -> str:
    """Return the version of an installed package, empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _files(path: Path, pattern: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of the files below a path that match a pattern, in order; of a file that of itself."""
    try:
        own = user_paths.status(path)
    except ConfigError:
        own = None
    if own is None:
        # The data set itself names what is missing, unreadable or too long
        return
    if stat.S_ISREG(own.st_mode):
        yield "", own
        return
    depth = None if "**" in pattern else pattern.count("/") + 1
    for name, status in _walk(user_paths.full(path), "", depth):
        if depth is None or fnmatch(name, pattern):
            yield name, status


def _walk(root: str, below: str, depth: int | None, level: int = 1) -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative name and status of all files below a folder, at most `depth` levels deep, in order."""
    try:
        with os.scandir(os.path.join(root, below)) as entries:  # noqa: PTH118  (a Path per file takes ten times as long)
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        try:
            if entry.is_dir(follow_symlinks=level <= _LINKED_LEVELS):
                if user_paths.leads_up(entry.path):
                    # As the data set does
                    continue
                if depth is None or level < depth:
                    yield from _walk(root, name, depth, level + 1)
            else:
                yield name, entry.stat()
        except OSError:
            continue


def recall(state: _DataState | None) -> Fingerprint | None:
    """Return the fingerprint that was kept for a state, None if there is none."""
    if state is None or not state.settled:
        return None
    path = _place(state)
    try:
        found = from_record(json.loads(read(path, _MAX_BYTES)))
        # The modification time records the last use
        os.utime(user_paths.full(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found


def remember(state: _DataState | None, found: Fingerprint) -> None:
    """Keep the fingerprint of a state, unless a change of the files could go unnoticed."""
    if state is not None and state.settled:
        write_cache(_place(state), json.dumps(found.to_record()).encode())


def _place(state: _DataState) -> Path:
    """Return the file that keeps the fingerprint of a state."""
    return cache_home() / f"{state.key}.json"
