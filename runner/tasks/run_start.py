"""The beginning of a training run: its own checkpoint, the run that it extends, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import numerics
from runner.assemble.load_data import Loaded
from runner.engine.saving.checkpoint import Snapshot
from runner.tasks.extend_run import Origin
from runner.tasks.job import Job
from runner.tasks.run_folder import Run
from runner.tasks.saved_data import record_paths, resumed_data, saved_data


@dataclass(frozen=True)
class Start:
    """The beginning of a run: its own newest checkpoint, the run that it extends, or neither."""

    snapshot: Snapshot | None
    origin: Origin | None
    versions: tuple[int, int] | None  # of the numbers before and after, if they change here

    @property
    def log_state(self) -> Any:
        """Return the state of the logs, None for new ones."""
        if self.origin:
            return self.origin.log_state
        return self.snapshot.state.get("log", {}) if self.snapshot else None


def data_of_run(
    resumed: Run | None, job: Job, snapshot: Snapshot | None, loaded: Loaded, origin: Origin | None
) -> tuple[Loaded, list[str]]:
    """Return the data of a run, of one that goes on with the labels that its model knows, and lines about them."""
    if resumed is None and origin is None:
        return loaded, []
    saved = origin.saved if origin else None
    if saved is None and resumed:
        saved = saved_data(resumed.folder, resumed.result, snapshot.meta if snapshot else None)
    assert saved is not None
    loaded, lines = resumed_data(saved, loaded, accept=job.config["resume_data"] == "new")
    if resumed and job.world.is_main and resumed.read_only is None:
        record_paths(resumed.folder, job.config)
    return loaded, lines


def numerics_of(folder: Path | None, config: Mapping[str, Any], snapshot: Snapshot | None) -> tuple[int, int] | None:
    """Return the numerics versions before and after a snapshot if the numbers change there, else None.

    Raises CheckpointError if they would and `resume_numerics=new` is not given, or if a newer version wrote it.
    """
    if snapshot is None:
        return None
    version = numerics.version_in(snapshot.meta, folder)
    accept = config["resume_numerics"] == "new"
    return (version, numerics.current()) if numerics.check_unchanged(config, version, folder, accept=accept) else None
