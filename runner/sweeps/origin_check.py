"""Before trials start: which are there of other code or versions, and where they go if they run again.

What differs is read from environment.json: git commits, digests of the user's modules, versions of packages.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.engine.provenance import code_origin
from runner.engine.saving import storage
from runner.engine.saving.disk import fills_disk
from runner.engine.saving.folder import REPLACED, candidates, read_environment
from runner.engine.saving.locking import lock
from runner.engine.saving.storage import write_atomic
from runner.engine.user_code import CODE, CONTINUED, current_digest
from runner.errors import Locked, StorageError, brief
from runner.sweeps.outcome import folder_of, is_same_run, saved_result
from runner.tasks.job import Job

_GIT = {"git": "git", "git_package": "git of runner"}
_USED = "used as before; rerun=changed runs them again"
# Most characters of what differs in one line
_MOST_WORDS = 300


class OriginCheck:
    """Compares the trials of a sweep with the code and versions of this command."""

    def __init__(self) -> None:
        self._digests: dict[str, str | None] = {}

    @cached_property
    def _now(self) -> dict[str, Any]:
        return code_origin()

    def changes(self, folder: Path) -> str:
        """Return in words how code and versions changed since the run in a folder, empty if they did not."""
        environment = read_environment(folder)
        later = environment.get(CONTINUED)
        origins = [environment, *(later if isinstance(later, list) else ())] if environment else []
        words = dict.fromkeys(each for origin in origins if isinstance(origin, dict) for each in self._changes(origin))
        return brief("; ".join(words), _MOST_WORDS)

    def settled(self, jobs: Sequence[Job]) -> list[str]:
        """Return lines about runs of other code, after moving those aside that are to run again."""
        kinds: Counter[tuple[str, str]] = Counter()
        for job in jobs:
            folder = folder_of(job)
            if is_same_run(folder, job) and (words := self.changes(folder)):
                kinds[words, _settle(job, words)] += 1
        return list(_lines(kinds))

    def used(self, folders: Iterable[Path]) -> list[str]:
        """Return lines about runs of other code whose results are used."""
        return list(_lines(Counter((words, _USED) for folder in folders if (words := self.changes(folder)))))

    def _changes(self, origin: Mapping[str, Any]) -> Iterator[str]:
        """Yield what differs from one origin to the present one; what one of them does not know is left out."""
        for key, name in _GIT.items():
            before, now = origin.get(key), self._now[key]
            if isinstance(before, dict) and isinstance(now, dict) and before != now:
                yield f"{name} {_commit(before)}, now {_commit(now)}"
        versions = origin.get("versions")
        for package, now in self._now["versions"].items():
            before = versions.get(package) if isinstance(versions, dict) else None
            if before and now and before != now:
                yield f"{package} {before}, now {now}"
        code = origin.get(CODE)
        for module, before in code.items() if isinstance(code, dict) else ():
            if (now := self._digest(module)) and now != before:
                yield f"module {module} changed"

    def _digest(self, module: str) -> str | None:
        if module not in self._digests:
            self._digests[module] = current_digest(module)
        return self._digests[module]


def _lines(kinds: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Yield a line for each kind: what differs, and what happens to these runs."""
    for (words, end), count in kinds.items():
        what = "a trial here is" if count == 1 else f"{count} trials here are"
        yield f"{what} of other code or versions ({words}): {end}"


def _settle(job: Job, words: str) -> str:
    """Move the folder of a run aside if it is to run again; return what happens to it."""
    result = saved_result(job)
    has_result = bool(result and result.status.is_result)
    if job.config["rerun"] == "changed":
        try:
            _move_aside(folder_of(job), words)
        except (Locked, StorageError) as error:
            if fills_disk(error, folder_of(job).parent):
                raise
            return f"cannot be moved away to run again ({error}); used as before"
        return "run again; the old runs are kept as <name>-old, which compare leaves out"
    if has_result:
        return _USED
    return "resumed from the last checkpoint; rerun=changed runs them again from the start"


def _move_aside(folder: Path, words: str) -> None:
    """Rename the folder of a run to `<name>-old` (or `-old-2`, ...), and note there why."""
    with lock(folder):
        named = candidates(folder.with_name(f"{folder.name}-old"))
        kept = next(each for each in named if not user_paths.exists(each, error=StorageError, links=False))
        # First, so that no run counts that was moved away
        write_atomic(folder / REPLACED, json.dumps({"by": folder.name, "because": words}, indent=1).encode())
        try:
            storage.disk.replace(folder, kept)
        except OSError as error:
            with suppress(OSError):
                storage.disk.unlink(folder / REPLACED)
            raise StorageError(f"{folder}: {error.strerror}") from error


def _commit(record: Mapping[str, Any]) -> str:
    """Return a commit as a line shows it, with a + if tracked files had changed."""
    return f"{str(record.get('commit'))[:8]}{'+' if record.get('dirty') else ''}"
