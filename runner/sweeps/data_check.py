"""Before trials start: give each run a folder that holds no run on other data, so that no other data's score is used.

The fingerprint of the data is looked up by the state of their files. Where that does not help, another process reads
the data: this one does not import torch.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from runner.engine.saving.data_folders import data_of, folder_for_data
from runner.identity import data_state, recall
from runner.printing import write_stderr
from runner.sweeps.ask_process import ask_process
from runner.sweeps.outcome import folder_of, is_same_run, moved, read_saved_result
from runner.tasks.job import Job

# What decides which examples a run reads
_READ = ("data", "plugins", "folds", "fold")


class DataCheck:
    """Knows the data of a sweep's runs; one object for each sweep, since the data may change between two."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # by `_key`
        self._reported: set[str] = set()

    def settled(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs with the folders of runs on these data, and print a line for each way in which some differ.

        Raises DataError if a run has a result, and the data that it is to be compared with cannot be read.
        """
        begun = [job for job in jobs if data_of(folder_of(job)) and is_same_run(folder_of(job), job)]
        self._find([job.config for job in begun])
        other = {id(job): moved for job in begun if (moved := self._settled(job)) is not job}
        found = [other.get(id(job), job) for job in jobs]
        self._report(found, Counter(self._id(job.config)[:4] for job in begun if id(job) in other))
        return found

    def fingerprint(self, config: Mapping[str, Any]) -> str:
        """Return the fingerprint of the data that a config reads; raises DataError if they cannot be read."""
        self._find([config])
        return self._id(config)

    def _settled(self, job: Job) -> Job:
        """Return a job with the folder of its run on these data."""
        folder, now = folder_of(job), self._id(job.config)
        result = read_saved_result(folder)
        if job.config["resume_data"] == "new" and not (result and result.status.is_result):
            return job
        own = folder_for_data(folder, now)
        return moved(job, own)

    def _report(self, jobs: Sequence[Job], moved: Mapping[str, int]) -> None:
        """Print a line about runs on other data, and one about results that do not say which data they are of."""
        for suffix, count in moved.items():
            what = f"{count} trials here are" if count > 1 else "a trial here is"
            self._say(f"{what} of other data and not used again: runs on these data go to folders -data{suffix}")
        results = [read_saved_result(folder_of(job)) for job in jobs]
        unknown = [each for each in results if each and each.status.is_result and each.scores and not each.data]
        if unknown:
            what = "1 result has" if len(unknown) == 1 else f"{len(unknown)} results have"
            self._say(f"{what} no fingerprint of the data (an older version wrote it); accepted as of these data")

    def _say(self, line: str) -> None:
        """Print a line once."""
        if line not in self._reported:
            self._reported.add(line)
            write_stderr(f"{line}\n")

    def _id(self, config: Mapping[str, Any]) -> str:
        return self._known[_key(config)]

    def _find(self, configs: Sequence[Mapping[str, Any]]) -> None:
        """Find the fingerprints of the data that some configs read."""
        new = {key: config for config in configs if (key := _key(config)) not in self._known}
        for key, config in list(new.items()):
            # What is kept for files is the fingerprint of all folds
            if config["folds"] is None and (known := recall(data_state(config))):
                self._known[key] = known.id
                del new[key]
        if new:
            wanted = [{name: config[name] for name in _READ} for config in new.values()]
            answers = (
                _fingerprints(wanted) if "torch" in sys.modules else ask_process(__name__, "_fingerprints", wanted)
            )
            self._known.update(zip(new, answers, strict=True))


def _key(config: Mapping[str, Any]) -> str:
    """Return a key that is equal for configs that read the same data."""
    return repr([config[name] for name in _READ])


def _fingerprints(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fingerprints of data, read in this process."""
    import runner.components  # noqa: F401  (registers them)
    from runner.assemble.load_data import fingerprint_before_reading
    from runner.tasks.plugins import known_cause, load_plugins

    found = []
    for config in configs:
        load_plugins(config["plugins"])
        try:
            found.append(fingerprint_before_reading(config).id)
        except Exception as error:
            cause = known_cause(error, config["plugins"])
            raise cause from (error if cause is not error else None)
    return found
