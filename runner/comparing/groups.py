"""Configurations: runs that are the same but for their seed, and what differs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.comparing.runs import COMPLETE, Run
from runner.errors import ConfigError, brief, nearest

Value = bool | float | str
SHOWN = 6  # configurations that one line may name


@dataclass(frozen=True, kw_only=True)
class Group:
    """One configuration with all its runs, ended well or not."""

    label: str  # what differs, `optim=adam,optim.lr=0.1`
    short: str  # the same with the last words of the keys, `optim=adam,lr=0.1`
    values: dict[str, Value]  # of the hyperparameters that differ, where it has them
    runs: tuple[Run, ...]  # one per seed
    repeats: tuple[Run, ...] = ()  # of a seed that is there already: no replication

    @property
    def complete(self) -> tuple[Run, ...]:
        """Return the runs that ended well."""
        return tuple(run for run in self.runs if run.result.status in COMPLETE)

    @property
    def fates(self) -> Counter[str]:
        """Return how many runs ended in each of the other ways."""
        return Counter(run.result.status for run in self.runs if run.result.status not in COMPLETE)

    def scores(self, metric: str, at: str) -> dict[int, float]:
        """Return the score of each seed that has one."""
        found = {run.seed: run.score(metric, at) for run in self.runs}
        return {seed: score for seed, score in sorted(found.items()) if score is not None}


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Return the configurations of runs, in order of what differs between them."""
    sets: dict[tuple[tuple[str, Value], ...], list[Run]] = {}
    for run in runs:
        sets.setdefault(tuple(sorted(run.hparams.items())), []).append(run)
    keys = differing([dict(items) for items in sets])
    named = naming(keys, [dict(items) for items in sets])
    groups = [make(members, keys, named) for members in sets.values()]
    return sorted(groups, key=lambda group: [rank(group.values.get(key)) for key in named])


def make(members: Sequence[Run], keys: Sequence[str], named: Sequence[str]) -> Group:
    """Return the group of some runs: of each seed the first that ended well, else the first, is the one that counts."""
    first: dict[int, Run] = {}
    for run in sorted(members, key=lambda run: (run.result.status not in COMPLETE, run.started, str(run.folder))):
        first.setdefault(run.seed, run)
    values = {key: members[0].hparams[key] for key in keys if key in members[0].hparams}
    kept = tuple(run for _, run in sorted(first.items()))
    repeats = tuple(run for run in members if run not in kept)
    words = shortened(named)
    label, short = (
        ",".join(f"{word[key]}={worded(values[key])}" for key in named if key in values) or "all runs"
        for word in (dict(zip(named, named, strict=True)), words)
    )
    return Group(label=label, short=short, values=values, runs=kept, repeats=repeats)


def shortened(keys: Sequence[str]) -> dict[str, str]:
    """Return the last word of each key, the whole key where two would be called the same."""
    words = Counter(key.rpartition(".")[2] for key in keys)
    return {key: word if words[word := key.rpartition(".")[2]] == 1 else key for key in keys}


def differing(configs: Sequence[Mapping[str, Value]]) -> list[str]:
    """Return the keys that do not have one value everywhere, in the order of the configs."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({config.get(key) for config in configs}) > 1]


def naming(keys: Sequence[str], configs: Sequence[Mapping[str, Value]]) -> list[str]:
    """Return the keys that tell configurations apart: without knobs that only follow the choice of their part.

    `optim.lr` follows `optim` where every adam has one rate and every sgd another.
    """
    found = []
    for key in keys:
        top = key.partition(".")[0]
        follows = key != top and top in keys
        if not follows or len({(config.get(top), config.get(key)) for config in configs}) > len(
            {config.get(top) for config in configs}
        ):
            found.append(key)
    return found


def worded(value: Value | None) -> str:
    """Return a value as a label shows it."""
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else value


def rank(value: Value | None) -> tuple[int, float, str]:
    """Return what orders values: numbers by size, words by letter."""
    if isinstance(value, (bool, float)):
        return 1, float(value), ""
    return (0, 0.0, "") if value is None else (2, 0.0, value)


def baseline(groups: Sequence[Group], wanted: str | None) -> Group:
    """Return what the others are held against: the one asked for, else the one with most seeds, the earliest of these.

    Asked for by what differs (`optim=sgd`, as much of it as is needed) or by one of its run folders.
    Raises ConfigError for one that is not there, or not the only one.
    """
    if wanted is None:
        return min(groups, key=lambda group: (-len(group.complete), min(run.started for run in group.runs)))
    found = [group for group in groups if group.label == wanted or of_folder(group, wanted)] or [
        group for group in groups if matches(group, wanted)
    ]
    if len(found) == 1:
        return found[0]
    labels = [group.label for group in groups]
    many = f", ... {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    what = f"fits {len(found)} configurations" if found else "is none of the configurations"
    listed = "; ".join((nearest(wanted, labels) if many else labels)[:SHOWN])
    raise ConfigError(f"task.baseline: '{brief(wanted)}' {what} (there are: {listed}{many})")


def of_folder(group: Group, wanted: str) -> bool:
    """Tell whether one of a group's runs lies in a folder of this name or path."""
    return any(wanted.rstrip("/") in (str(run.folder), run.folder.name) for run in group.runs)


def matches(group: Group, wanted: str) -> bool:
    """Tell whether a group has all the values that a text `key=value,key=value` names; `lr` means `optim.lr`."""
    pairs = [word.partition("=")[::2] for word in wanted.split(",")]
    return all(any(same(group.values[key], text) for key in meant(group, word)) for word, text in pairs)


def meant(group: Group, word: str) -> list[str]:
    """Return the keys that a word stands for: its own, else those that end in it."""
    return [key for key in group.values if key == word] or [key for key in group.values if key.endswith(f".{word}")]


def same(value: Value | None, text: str) -> bool:
    """Tell whether a text means a value: 1e-1 is 0.1."""
    try:
        return value == float(text) if isinstance(value, float) else worded(value) == text
    except ValueError:
        return False
