"""The fastest of a few trials to a target, medians over studies, and performance profiles.

The rules are those of AlgoPerf (Dahl et al. 2023, arXiv 2306.07179, section 4). A study is some trials of one setting;
its fastest trial to the target counts. The time of a setting on a workload is the median over its studies. A trial that
never arrives, and a workload on which a setting has no run, counts as infinite. The performance profile of a setting is
the share of the workloads on which its time is within a factor of the best one (Dolan and More 2002).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from runner.comparing.groups import Group, format_value, label_keys
from runner.comparing.runs import Run
from runner.comparing.targets import Arrival, Target, arrival
from runner.errors import ConfigError, unknown

# AlgoPerf integrates profiles up to this factor
MAX_FACTOR = 4.0
# The unit of a time: its name, and how it is taken from an arrival
UNITS: dict[str, Callable[[Arrival], float]] = {
    "steps": lambda arrival: arrival.steps,
    "seconds": lambda arrival: arrival.seconds,
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A setting on a workload: its trials in order, and the studies that they make."""

    setting: str
    workload: str  # empty if there is one
    arrivals: tuple[Arrival, ...]
    studies: tuple[tuple[Arrival, ...], ...]

    def fastest(self, unit: str) -> list[float]:
        """Return the time of the fastest trial of each study."""
        return [min(map(UNITS[unit], study)) for study in self.studies]

    def time(self, unit: str) -> float:
        """Return the median over the studies."""
        return median(self.fastest(unit))

    @property
    def left_out(self) -> int:
        """The number of trials that make no complete study."""
        return len(self.arrivals) - sum(map(len, self.studies))


@dataclass(frozen=True, kw_only=True)
class Race:
    """All settings on all workloads, and the arrivals of all runs by their folder."""

    target: Target
    per_study: int
    entries: tuple[Entry, ...]
    arrivals: Mapping[Path, Arrival]

    @property
    def settings(self) -> list[str]:
        """The settings in order."""
        return list(dict.fromkeys(entry.setting for entry in self.entries))

    @property
    def workloads(self) -> list[str]:
        """The workloads in order."""
        return list(dict.fromkeys(entry.workload for entry in self.entries))

    def factors(self, unit: str) -> dict[str, list[float]]:
        """Return for each setting its time on each workload in units of the best one's; infinite where it has none."""
        times = {(entry.setting, entry.workload): entry.time(unit) for entry in self.entries}
        best = {w: min(times.get((s, w), math.inf) for s in self.settings) for w in self.workloads}
        return {s: [_factor(times.get((s, w), math.inf), best[w]) for w in self.workloads] for s in self.settings}

    def profiles(self, unit: str) -> dict[str, float]:
        """Return the area under the profile of each setting from 1 to `MAX_FACTOR`, over its largest value.

        A workload is part of the profile from its factor on, so its share of the area is what is left of the range.
        """
        return {
            setting: fmean(max(0.0, MAX_FACTOR - factor) / (MAX_FACTOR - 1) for factor in factors)
            for setting, factors in self.factors(unit).items()
        }


def _factor(time: float, best: float) -> float:
    """Return a time in units of the best one; infinite if nobody arrived."""
    if math.isinf(time):
        return math.inf
    return 1.0 if time == best else time / best if best else math.inf


def share_within(factors: Sequence[float], factor: float) -> float:
    """Return the share of the workloads that are within a factor of the best: the profile at this factor."""
    return sum(each <= factor for each in factors) / len(factors)


def studies_of(arrivals: Sequence[Arrival], size: int) -> tuple[tuple[Arrival, ...], ...]:
    """Return consecutive trials as studies of a size; fewer trials than that are one study, a rest makes none."""
    whole = len(arrivals) // size
    return tuple(tuple(arrivals[i * size : (i + 1) * size]) for i in range(whole)) or (tuple(arrivals),)


def run_race(
    groups: Sequence[Group], target: Target, per_study: int, tuned: Sequence[str], workloads: Sequence[str]
) -> Race:
    """Return all settings on all workloads.

    Args:
        groups: The configurations.
        target: The target.
        per_study: Trials of a study.
        tuned: Hyperparameters that differ between the trials of one setting.
        workloads: Hyperparameters whose values are workloads; the others that differ are the settings.

    Raises:
        ConfigError: A name is that of no hyperparameter that differs, or is in both lists.
    """
    keys = list(dict.fromkeys(key for group in groups for key in group.values))
    apart, works = _matching("task.tuned", tuned, keys), _matching("task.workloads", workloads, keys)
    if both := apart & works:
        raise ConfigError(f"task.tuned: {min(both)} is also in task.workloads; expected it in one of the two")
    rest = [key for key in keys if key not in apart | works]
    settings, places = _labels(groups, rest), _labels(groups, [key for key in keys if key in works])
    trials: dict[tuple[str, str], list[tuple[int, int, Run]]] = {}
    for number, (group, setting, place) in enumerate(zip(groups, settings, places, strict=True)):
        trials.setdefault((setting or "all runs", place), []).extend((run.seed, number, run) for run in group.runs)
    arrivals = {run.folder: arrival(run, target) for runs in trials.values() for _, _, run in runs}
    entries = []
    for (setting, workload), runs in trials.items():
        # By seed, and of one seed the configurations in their order
        ordered = tuple(arrivals[run.folder] for _, _, run in sorted(runs, key=lambda trial: trial[:2]))
        studies = studies_of(ordered, per_study)
        entries.append(Entry(setting=setting, workload=workload, arrivals=ordered, studies=studies))
    return Race(target=target, per_study=per_study, entries=tuple(entries), arrivals=arrivals)


def _matching(place: str, words: Sequence[str], keys: Sequence[str]) -> set[str]:
    """Return the keys that words name: `optim.lr`, its end `lr`, or `optim` with all its knobs."""
    found: set[str] = set()
    for word in words:
        named = {key for key in keys if key == word or key.startswith(f"{word}.") or key.endswith(f".{word}")}
        if not named:
            raise unknown(place, "hyperparameter that differs", word, keys)
        found |= named
    return found


def _labels(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """Return some hyperparameters of each configuration as a label, without those that follow from others."""
    values = [{key: group.values[key] for key in keys if key in group.values} for group in groups]
    named = label_keys(keys, values)
    return [",".join(f"{key}={format_value(each[key])}" for key in named if key in each) for each in values]


def race_notes(race: Race) -> list[str]:
    """Return what the times mean, and the trials that make no complete study."""
    notes = [
        f"time to {race.target}: a study is {race.per_study} runs in the order of their seeds, and its fastest counts; "
        "shown is the median over studies; a run that never arrives counts as infinite",
        "seconds to the target are those of training steps, without validations and checkpoints",
    ]
    short = [entry for entry in race.entries if len(entry.arrivals) < race.per_study]
    if short:
        notes.append(f"fewer than {race.per_study} runs are one study: {_named(short)}")
    if rest := [entry for entry in race.entries if entry.left_out]:
        notes.append(f"runs that make no complete study are left out: {_named(rest)}")
    return notes


def _named(entries: Sequence[Entry], most: int = 3) -> str:
    """Return the settings of some entries with their numbers of runs."""
    words = [f"{' on '.join(filter(None, (e.setting, e.workload)))} ({len(e.arrivals)})" for e in entries[:most]]
    return ", ".join([*words, *([f"{len(entries) - most} more"] if len(entries) > most else [])])
