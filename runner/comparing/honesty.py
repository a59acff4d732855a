"""What would make a comparison misleading: refused where scores mean different things, else said above the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from runner.comparing.groups import Group
from runner.comparing.runs import Found, Run
from runner.comparing.verdicts import Rule
from runner.errors import ConfigError, brief
from runner.keys import knob_marks, settings_with
from runner.roles import Aspect, Marks, Role

SHOWN = 3
SEEDS = 5
REASON = 100  # characters


def data_of(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the values that decide which examples a run is scored on; a folder of downloads is not one."""
    data: dict[str, Any] = run.config["data"]
    marks = knob_marks("data", data, run.config)
    return tuple(sorted((key, str(value)) for key, value in data.items() if _chooses_examples(marks.get(key))))


def _chooses_examples(marks: Marks | None) -> bool:
    """Return True if a knob of the data set decides which examples are scored."""
    if marks is None:
        return True
    trains_only = marks.role is not Role.EXPERIMENT or Aspect.TRAINING in marks.aspects
    return Aspect.EXAMPLES in marks.aspects or not trains_only


def refuse_other_data(runs: Sequence[Run]) -> None:
    """Raise ConfigError where scores are not of the same examples."""
    found = Counter(map(data_of, runs))
    if len(found) > 1:
        shared = set.intersection(*map(set, found))
        words = [
            f"{' '.join('='.join(item) for item in data if item not in shared)}: {count} runs"
            for data, count in found.most_common(SHOWN)
        ]
        raise ConfigError(f"runs: the runs are of different data ({'; '.join(words)}), whose scores cannot be compared")


def banners(groups: Sequence[Group], found: Found, rule: Rule) -> list[str]:
    """Return what must be read before the table: unequal conditions, and runs that are missing from it."""
    runs = [run for group in groups for run in group.runs]
    lines = [
        *unequal(runs, settings_with(Aspect.BUDGET), "budgets differ", "more training alone may explain a difference"),
        *unequal(
            runs,
            settings_with(Aspect.SELECTION),
            "selection rules differ",
            "a best score over more validations is higher by chance",
        ),
        *unequal(runs, ("precision",), "precision differs", "numbers differ for that reason too"),
        *conditions(runs),
        *missing(groups, found),
    ]
    if rule.at == "best":
        lines.append(
            "best validation of each run: chosen and reported on the same examples, so higher than on new ones"
        )
    return lines


def unequal(runs: Sequence[Run], keys: Sequence[str], what: str, why: str) -> list[str]:
    """Return a line if the runs do not share the values of some settings."""
    lines = []
    for key in keys:
        values = Counter(str(run.config.get(key)) for run in runs)
        if len(values) > 1:
            words = ", ".join(f"{value} ({count} runs)" for value, count in values.most_common(4))
            lines.append(f"{what}: {key} is {words}; {why}")
    return lines


def conditions(runs: Sequence[Run]) -> list[str]:
    """Return a line for each condition outside the config that was not the same."""
    lines = []
    for what, given in (("code", commit), ("torch", torch_version), ("device", device), ("numerics", numerics)):
        values = Counter(map(given, runs))
        if len(values) > 1:
            words = ", ".join(f"{value} ({count} runs)" for value, count in values.most_common(4))
            lines.append(f"{what} differs: {words}")
    return lines


def commit(run: Run) -> str:
    """Return the commit of the code that a run was made by, with a + if files were changed."""
    for where in ("git_package", "git"):
        if isinstance(git := run.environment.get(where), dict):
            return f"{str(git.get('commit'))[:8]}{'+' if git.get('dirty') else ''}"
    return "unknown"


def torch_version(run: Run) -> str:
    """Return the version of torch that a run was made by."""
    versions = run.environment.get("versions")
    return str(versions.get("torch")) if isinstance(versions, dict) else "unknown"


def device(run: Run) -> str:
    """Return what a run computed on."""
    return str(run.environment.get("device", "unknown"))


def numerics(run: Run) -> str:
    """Return which numerics versions a run was trained with, where those were several."""
    return " then ".join(map(str, run.result.numerics or ())) or "one version"


def missing(groups: Sequence[Group], found: Found) -> list[str]:
    """Return a line for each kind of run that is in no mean: failed, going on, repeated, unreadable."""
    lines = []
    for group in groups:
        for fate, count in group.fates.items():
            lost = [run for run in group.runs if run.result.status == fate]
            reason = next((brief(run.result.reason, REASON) for run in lost if run.result.reason), "")
            seeds = ", ".join(str(run.seed) for run in lost[:SEEDS]) + (", ..." if count > SEEDS else "")
            why = f": {reason.removeprefix(f'{fate} ')}" if reason else ""
            lines.append(f"{group.label}: {count} of {len(group.runs)} {fate} (seed {seeds}), in no mean{why}")
    if repeats := sum(len(group.repeats) for group in groups):
        lines.append(f"{repeats} runs repeat a seed of their configuration: no replication, each seed counts once")
    lines += [f"unreadable: {reason}" for reason in found.unreadable.values()]
    if found.others:
        lines.append(f"{len(found.others)} folders are of other tasks than training: left out")
    return lines
