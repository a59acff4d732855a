"""The protocol of trackers, and the facts that they get about a run; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# The number of optimizer steps done, and the numbers of that step by tag
TrackedRow = tuple[int, dict[str, float]]


@dataclass(frozen=True)
class TrackedRun:
    """The facts about a run that a tracker gets.

    Attributes:
        folder: The run folder.
        name: The name of the run.
        group: The hash of its configuration, equal for all seeds.
        sweep: The name of the sweep that the run belongs to, None for a single run.
        config: The config, with `***` for the passwords of URLs.
        id: A random word, the same in all sessions of the run. A tracker that has a run of this id continues it.
    """

    folder: Path
    name: str
    group: str
    sweep: str | None
    config: Mapping[str, Any]
    id: str = ""


class Tracker(Protocol):
    """Keeps the rows of a run in another place. All calls come from one thread, which no training step waits for.

    A call that raises an exception costs one warning. After a pause `start` is called again, then `log` with the rows
    that were not acknowledged.

    Attributes:
        from_first_row: True if each session gets all rows of the run from the first one; False if a session gets the
            rows after the last step that an earlier one has acknowledged.
    """

    from_first_row: bool

    def start(self, run: TrackedRun) -> object:
        """Create the tracker's run, or open the one of `run.id` again; what it returns is not read."""
        ...

    def log(self, rows: Sequence[TrackedRow]) -> None:
        """Keep rows, in order of step; they are acknowledged when the call returns.

        After a crash the first rows of a session may be ones that the tracker has already.
        """
        ...

    def finish(self, status: str, scores: Mapping[str, float]) -> None:
        """Note how the run ended, with the final scores by tag (`test/accuracy`); it may be resumed later."""
        ...

    def close(self) -> None:
        """Release everything; called at the end of a session, also after an exception or without `start`."""
        ...
