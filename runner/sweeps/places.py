"""Before trials start: the folder of each run, which holds this run on these data or none, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.engine.saving.data_folders import same_name
from runner.engine.saving.evidence import monitor_of, set_aside, standing
from runner.engine.saving.locking import lock
from runner.engine.saving.storage import write_atomic
from runner.errors import Locked, StorageError
from runner.printing import write_stderr
from runner.sweeps.data_check import DataCheck
from runner.sweeps.origin_check import OriginCheck
from runner.sweeps.outcome import CONFIG, folder_of, has_file, saved_result, with_own_folders
from runner.tasks.job import Job
from runner.tasks.saved_config import saved_hash


class Places:
    """Gives the runs of a sweep their folders; one object for each command."""

    def __init__(self) -> None:
        self.data, self._origin = DataCheck(), OriginCheck()
        self._told: set[str] = set()

    def settled(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs with the folders of their runs, and print a line for each way in which some are not as expected.

        Raises DataError if a run has a result, and the data that it is to be compared with cannot be read.
        """
        own = with_own_folders(jobs)
        moved = sum(new is not job for new, job in zip(own, jobs, strict=True))
        if moved:
            what = "a trial's folder holds" if moved == 1 else f"the folders of {moved} trials hold"
            self._say(f"{what} another run (its config.yaml is of other values); its own goes to <name>-2")
        found = self.data.settled(own)
        if restored := sum(map(_restore_config, found)):
            what = "a trial with a result had" if restored == 1 else f"{restored} trials with results had"
            self._say(f"{what} no readable config.yaml; it is written again, as the name of the folder proves it")
        for line in self._origin.settled(found):
            self._say(line)
        return found

    def tell_used(self, folders: Iterable[Path]) -> None:
        """Print a line for each way in which runs of a search, whose scores it uses, are of other code or versions."""
        for line in self._origin.used(folders):
            self._say(line)

    def is_current(self, folder: Path, config: Mapping[str, Any]) -> bool:
        """Return True if the run in a folder has a result that is used: a proven one, of this code if that is asked."""
        if not standing(folder, monitor_of(config)).status.is_result:
            return False
        return config["rerun"] == "never" or not self._origin.changes(folder)

    def _say(self, line: str) -> None:
        """Print a line once."""
        if line not in self._told:
            self._told.add(line)
            write_stderr(f"{line}\n")


def _restore_config(job: Job) -> bool:
    """Write the lost config of a run that has a result, so that others can read what it is of; return True if so."""
    folder = folder_of(job)
    result = saved_result(job)
    proves = result and result.status.is_result and same_name(folder.name, job.hash8)
    if not proves or saved_hash(folder, job.config):
        return False
    path = folder / CONFIG
    try:
        with lock(folder):
            if has_file(path):
                set_aside(path)
            write_atomic(path, plain_yaml.dump(job.config))
    except (OSError, StorageError, Locked):
        # Only others miss it
        return False
    return True
