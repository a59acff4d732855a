"""The folder by which the processes of a launcher of Hydra's know that a sweep still wants its trials."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from runner.engine.processes import is_alive, start_of
from runner.engine.saving.storage import make_folders
from runner.errors import StorageError
from runner.user_paths import exists, full

# In a sweep's folder
_LAUNCHES = ".launches"


@dataclass(frozen=True)
class Launch:
    """The runs that a sweep gives to a launcher together; they go on as long as the sweep lives and wants them.

    Processes of a launcher, also on other machines, look for the folder: removing it stops their runs. It holds an
    empty file for each run that began.
    """

    folder: Path
    pid: int
    host: str
    start: str  # of the process, which another one with its number does not share

    @classmethod
    def begin(cls, sweep: Path) -> Launch:
        """Return a new launch of a sweep; those of processes that were killed end now."""
        root = Path(full(sweep / _LAUNCHES))
        shutil.rmtree(root, ignore_errors=True)
        folder = root / uuid.uuid4().hex
        make_folders(folder)
        return cls(folder, os.getpid(), socket.gethostname(), start_of(os.getpid()))

    def wanted(self) -> bool:
        """Return True as long as the runs are to go on."""
        return exists(self.folder, error=StorageError) and not self.orphaned()

    def orphaned(self) -> bool:
        """Return True if the process of the sweep was on this machine and has ended."""
        return socket.gethostname() == self.host and not (is_alive(self.pid) and start_of(self.pid) == self.start)

    def note(self, number: int) -> None:
        """Note that a run began."""
        with contextlib.suppress(OSError):
            (self.folder / str(number)).touch()

    def begun(self) -> set[int]:
        """Return the numbers of the runs that began."""
        for folder in (self.folder, self._stopped()):
            with contextlib.suppress(OSError):
                return {int(path.name) for path in folder.iterdir()}
        return set()

    def stop(self) -> None:
        """Have the runs save themselves and end."""
        with contextlib.suppress(OSError):
            self.folder.rename(self._stopped())

    def end(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _stopped(self) -> Path:
        return self.folder.with_suffix(".stopped")
