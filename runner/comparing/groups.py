"""Configurations: runs that differ only in their seed, and the hyperparameters that distinguish configurations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from runner.comparing.runs import Run
from runner.errors import ConfigError, brief, escaped
from runner.keys import named_origins, short_keys
from runner.spelling import nearest
from runner.status import Status

Value = bool | float | str
_Names = Mapping[tuple[str, Value], str]
# Most configurations that an error lists
_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Group:
    """One configuration with all its runs, complete or not."""

    label: str  # what differs, `optim=adam,optim.lr=0.1`
    short: str  # the same with the last words of the keys, `optim=adam,lr=0.1`
    values: dict[str, Value]  # of the hyperparameters that differ, where it has them
    runs: tuple[Run, ...]  # one per seed
    repeats: tuple[Run, ...] = ()  # further runs of a seed; they are not replications

    @cached_property
    def complete(self) -> tuple[Run, ...]:
        """The runs that trained to their end."""
        return tuple(run for run in self.runs if run.result.status.complete)

    @cached_property
    def failures(self) -> Counter[Status]:
        """The number of incomplete runs by status."""
        return Counter(run.result.status for run in self.runs if not run.result.status.complete)

    def scores(self, metric: str, at: str) -> dict[int, float]:
        """Return the scores by seed, without seeds that have none."""
        found = {run.seed: run.score(metric, at) for run in self.runs}
        return {seed: score for seed, score in sorted(found.items()) if score is not None}


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Return the configurations of some runs, sorted by the hyperparameters that differ.

    Runs of one configuration on other data are another group, told apart by the key `data.fingerprint`.
    """
    sets: dict[tuple[tuple[str, Value], ...], list[Run]] = {}
    for run, values in _with_data(runs := list(runs)):
        sets.setdefault(tuple(sorted(values.items())), []).append(run)
    keys = _differing_keys([dict(items) for items in sets])
    named = label_keys(keys, [dict(items) for items in sets])
    names = _origin_names(runs)
    groups = [_make_group(members, dict(items), keys, named, names) for items, members in sets.items()]
    return sorted(groups, key=lambda group: [sort_key(group.values.get(key)) for key in named])


def _with_data(runs: Sequence[Run]) -> list[tuple[Run, dict[str, Value]]]:
    """Return runs with their hyperparameters, and with the fingerprint of their data where several were read.

    A run of an older version, which does not say what it read, counts to the only data of its configuration.
    """
    of_config: dict[tuple[tuple[str, Value], ...], set[str]] = {}
    for run in runs:
        known = of_config.setdefault(tuple(sorted(run.hparams.items())), set())
        known |= {run.data} if run.data else set()
    if len(set().union(*of_config.values())) < 2:
        return [(run, run.hparams) for run in runs]
    found = []
    for run in runs:
        known = of_config[tuple(sorted(run.hparams.items()))]
        data = run.data or (next(iter(known)) if len(known) == 1 else "unknown")
        found.append((run, {**run.hparams, "data.fingerprint": data[:8]}))
    return found


def _origin_names(runs: Sequence[Run]) -> _Names:
    """Return what the user named, by key and hash, where the hyperparameters of runs have a hash.

    The same weights may have been named by several paths. Different ones may have been at one path, one after another.
    """
    texts: dict[tuple[str, Value], set[str]] = {}
    for run in runs:
        for key, text in named_origins(run.config).items():
            texts.setdefault((key, run.hparams[key]), set()).add(text)
    names = {place: _one_of(sorted(found)) for place, found in texts.items()}
    uses = Counter((key, name) for (key, _), name in names.items())
    return {(key, value): name if uses[key, name] == 1 else f"{name} ({value})" for (key, value), name in names.items()}


def _one_of(texts: Sequence[str]) -> str:
    """Return the first of some texts, and how many more there are."""
    return texts[0] if len(texts) == 1 else f"{texts[0]} and {len(texts) - 1} more"


def _make_group(
    members: Sequence[Run], hparams: Mapping[str, Value], keys: Sequence[str], named: Sequence[str], names: _Names
) -> Group:
    """Return the group of some runs; of each seed the first complete run counts, else the first."""
    first: dict[int, Run] = {}
    for run in sorted(members, key=lambda run: (not run.result.status.complete, run.started, str(run.folder))):
        first.setdefault(run.seed, run)
    values = {key: names.get((key, hparams[key]), hparams[key]) for key in keys if key in hparams}
    kept = tuple(run for _, run in sorted(first.items()))
    counted = {id(run) for run in kept}
    repeats = tuple(run for run in members if id(run) not in counted)
    label, short = (
        ",".join(f"{word[key]}={format_value(values[key])}" for key in named if key in values) or "all runs"
        for word in (dict(zip(named, named, strict=True)), short_keys(named))
    )
    return Group(label=label, short=short, values=values, runs=kept, repeats=repeats)


def _differing_keys(configs: Sequence[Mapping[str, Value]]) -> list[str]:
    """Return the keys whose values differ, in the order of the configs."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({config.get(key) for config in configs}) > 1]


def label_keys(keys: Sequence[str], configs: Sequence[Mapping[str, Value]]) -> list[str]:
    """Return the keys that a label needs; knobs that follow from the choice of their component are left out.

    `optim` determines `optim.lr` if every adam has the same rate and every sgd has the same rate.
    """
    found = []
    for key in keys:
        top = key.partition(".")[0]
        may_follow = key != top and top in keys
        if not may_follow or len({(config.get(top), config.get(key)) for config in configs}) > len(
            {config.get(top) for config in configs}
        ):
            found.append(key)
    return found


def format_value(value: Value | None) -> str:
    """Return a value as labels show it."""
    if value is None:
        return "-"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:.6g}"
        if isinstance(value, float)
        else escaped(value)
    )


def sort_key(value: Value | None) -> tuple[int, float, str]:
    """Return the sort key of a value: numbers by size, then text by letter."""
    if isinstance(value, (bool, float)):
        return 1, float(value), ""
    return (0, 0.0, "") if value is None else (2, 0.0, value)


def find_baseline(groups: Sequence[Group], wanted: str | None) -> Group:
    """Return the baseline: the one named, else the first configuration among those with the most complete seeds.

    `wanted` names it by its label, by as many `key=value` pairs as are needed, or by one of its run folders.
    Raises ConfigError if no configuration fits, or more than one does.
    """
    if wanted is None:
        return min(groups, key=lambda group: (-len(group.complete), min(run.started for run in group.runs)))
    found = [group for group in groups if group.label == wanted or _has_folder(group, wanted)] or [
        group for group in groups if _matches(group, wanted)
    ]
    if len(found) == 1:
        return found[0]
    labels = [group.label for group in groups]
    many = f", ... {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    what = f"matches {len(found)} configurations" if found else "matches no configuration"
    listed = "; ".join((nearest(wanted, labels) if many else labels)[:_SHOWN])
    raise ConfigError(f"task.baseline: '{brief(wanted)}' {what} (available: {listed}{many})")


def _has_folder(group: Group, wanted: str) -> bool:
    """Return True if one of a group's runs has a folder of this name or path."""
    return any(wanted.rstrip("/") in (str(run.folder), run.folder.name) for run in group.runs)


def _matches(group: Group, wanted: str) -> bool:
    """Return True if a group has all the values of `key=value,key=value`; `lr` means `optim.lr`."""
    pairs = [word.partition("=")[::2] for word in wanted.split(",")]
    return all(any(_equals(group.values[key], text) for key in _keys_for(group, word)) for word, text in pairs)


def _keys_for(group: Group, word: str) -> list[str]:
    """Return the key that equals a word, else the keys that end in it."""
    return [key for key in group.values if key == word] or [key for key in group.values if key.endswith(f".{word}")]


def _equals(value: Value | None, text: str) -> bool:
    """Return True if a text stands for a value: 1e-1 is 0.1."""
    try:
        return value == float(text) if isinstance(value, float) else format_value(value) == text
    except ValueError:
        return False
