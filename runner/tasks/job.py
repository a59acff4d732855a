"""What the front door hands to a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.engine.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run as asked for: the checked config as plain dicts, and where it is to go."""

    config: dict[str, Any]
    overrides: tuple[str, ...]  # as given on the command line
    folder_name: str  # below `outputs`, a number is added if it is taken
    folder: str | None = None  # exactly this folder instead (a trial of a sweep, or hydra.run.dir)
    hash8: str = ""  # names the configuration, seed included
    group_hash: str = ""  # names the configuration without its seed
    notes: bool = True  # its task writes it into the notebook; of a sweep's trials the sweep does, all at its end
    search: dict[str, Any] | None = None  # the trial of a search that it reports its scores to
    world: World = ALONE  # the processes that run it together
    folders: tuple[Path, ...] = ()  # the config folders, ours first, which task=list reads; none in a sweep
