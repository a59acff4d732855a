"""The runs that a comparison leaves out: a line for each kind, with number and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from runner.comparing.groups import Group
from runner.comparing.runs import Found
from runner.comparing.verdicts import Criterion
from runner.engine.saving.storage import printable
from runner.errors import brief
from runner.printing import counted

# Most seeds or names that a warning lists
_SHOWN_SEEDS = 5
# The number of a line in a reason
_LINE = re.compile(r"(?<=\.yaml):\d+")
# Most characters of a run's reason in a warning
_MAX_REASON = 100


def left_out_runs(groups: Sequence[Group], found: Found, criterion: Criterion) -> list[str]:
    """Return a warning for each kind of run that is excluded, with its number and names."""
    return [*_incomplete(groups), *_without_score(groups, criterion), *_not_counted(groups, found)]


def _incomplete(groups: Sequence[Group]) -> list[str]:
    """Return a warning for each configuration and status of runs that did not train to their end."""
    lines = []
    for group in groups:
        for status, count in group.failures.items():
            lost = [run for run in group.runs if run.result.status is status]
            reason = next((brief(run.result.reason, _MAX_REASON) for run in lost if run.result.reason), "")
            seeds = ", ".join(str(run.seed) for run in lost[:_SHOWN_SEEDS]) + (", ..." if count > _SHOWN_SEEDS else "")
            why = f": {reason.removeprefix(f'{status} ')}" if reason else ""
            lines.append(
                f"{group.label}: {count} of {len(group.runs)} {status} (seed {seeds}), excluded from the mean{why}"
            )
    return lines


def _not_counted(groups: Sequence[Group], found: Found) -> list[str]:
    """Return a warning for each kind of folder that counts in no configuration: repeats, unreadable ones, others."""
    lines = []
    if repeats := [run.folder for group in groups for run in group.repeats]:
        verbs = "repeats a seed of its" if len(repeats) == 1 else "repeat a seed of their"
        what = f"{counted(len(repeats), 'run')} {verbs} configuration, ignored: each seed counts once"
        lines.append(f"{what} ({_names(repeats)})")
    kinds: dict[str, list[Path]] = {}
    for folder, reason in found.unreadable.items():
        kinds.setdefault(_LINE.sub("", reason), []).append(folder)
    for kind, folders in kinds.items():
        lines.append(f"unreadable: {len(folders)} of unknown configuration left out ({_names(folders)}): {kind}")
    if found.replaced:
        verb = "was" if len(found.replaced) == 1 else "were"
        what = f"{counted(len(found.replaced), 'run')} that {verb} made again, left out"
        lines.append(f"{what} ({_names(found.replaced)})")
    if found.others:
        lines.append(f"{counted(len(found.others), 'folder')} of other tasks, ignored")
    return lines


def _without_score(groups: Sequence[Group], criterion: Criterion) -> list[str]:
    """Return a warning for each configuration with runs that ended well, but have no score of the compared kind."""
    lines = []
    for group in groups:
        lost = [run for run in group.complete if run.score(criterion.metric, criterion.at) is None]
        if lost:
            seeds = ", ".join(str(run.seed) for run in lost[:_SHOWN_SEEDS])
            what = f"{len(lost)} of {len(group.runs)} without {criterion.metric} (seed {seeds})"
            lines.append(f"{group.label}: {what}, excluded from the mean")
    return lines


def _names(folders: Sequence[Path]) -> str:
    """Return the names of some folders, at most a few."""
    more = ", ..." if len(folders) > _SHOWN_SEEDS else ""
    return ", ".join(printable(Path(folder.name)) for folder in folders[:_SHOWN_SEEDS]) + more
