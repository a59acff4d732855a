"""The data that the run in a folder read, and the folder of the same run on other data."""

from __future__ import annotations

import re
from pathlib import Path

from runner import user_paths
from runner.engine.fingerprint import from_record
from runner.engine.saving.folder import ResultLost, candidates, read_environment, read_result
from runner.errors import CheckpointError

# The end of the name of a folder whose run reads other data than the first run of its name
DATA_SUFFIX = r"-data[0-9a-f]{4}(-[0-9]{1,4})?"
_NAMED = re.compile(rf"(?P<name>.*?)(?:{DATA_SUFFIX})?", re.DOTALL)


def _name_without_data(name: str) -> str:
    """Return the name of a run's folder without the suffix that says which data it read."""
    match = _NAMED.fullmatch(name)
    assert match is not None
    return match["name"]


def data_of(folder: Path) -> str | None:
    """Return the fingerprint of the data that the run in a folder read last, None if it says nothing.

    Where the result is lost, `environment.json` says what the run began with.
    """
    try:
        found = read_result(folder).data if user_paths.is_dir(folder, error=CheckpointError) else None
    except ResultLost:
        begun_with = from_record(read_environment(folder).get("data"))
        return begun_with.id if begun_with else None
    except CheckpointError:
        return None
    return found[-1] if found else None


def folder_for_data(folder: Path, now: str) -> Path:
    """Return the folder of a run on the data of a fingerprint: not one that holds the same run on other data."""
    if data_of(folder) in (None, now):
        return folder
    named = candidates(folder.with_name(f"{folder.name}-data{now[:4]}"))
    return next(path for path in named if data_of(path) in (None, now))


def same_name(name: str, hash8: str) -> bool:
    """Return True if the name of a folder ends in the hash of a config, whichever data its run read."""
    return bool(hash8) and _name_without_data(name).endswith(f"-{hash8}")
