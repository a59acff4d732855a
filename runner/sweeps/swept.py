"""The swept keys of a sweep, the columns of its tables; read from the trials, whose folders' names may be cut."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from runner.tasks.job import Job

# Width from which on a column of a key may be cut, and the space between two columns
_NARROW = 6
SPACE = 2
# Letters of a trial's name that are always shown
NAME = 24
# Columns that make room for the swept keys, in this order
_DISPENSABLE = ("left", "loss", "epoch", "seconds", "trial")
# A text that is quoted as a whole
_QUOTED = re.compile(r'^"([^"\\]*)"$')
# Keys that say nothing about a training
_UNSHOWN = ("note", "sweep", "outputs", "plugins")


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """Return the keys whose values differ between trials, in the order of the command line."""
    found: dict[str, set[str | None]] = {}
    given = [values_of(job) for job in jobs]
    keys = dict.fromkeys(key for values in given for key in values if key not in _UNSHOWN)
    for values in given:
        for key in keys:
            found.setdefault(key, set()).add(values.get(key))
    return [key for key in keys if len(found[key]) > 1]


def values_of(job: Job) -> dict[str, str]:
    """Return the keys of a trial's command line with their values as typed, without those of Hydra."""
    words = (word.lstrip("+").partition("=") for word in job.overrides)
    return {key: _QUOTED.sub(r"\1", value) for key, _, value in words if not key.startswith("hydra")}


def headings(keys: Sequence[str]) -> list[str]:
    """Return the last part of each key, or the whole key where two would have the same heading."""
    words = Counter(key.rpartition(".")[2] for key in keys)
    return [word if words[word := key.rpartition(".")[2]] == 1 else key for key in keys]


def columns_that_fit(width: int, keys: Mapping[str, int], others: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Return the swept keys and the other columns that fit on a terminal; scores and states always stay.

    Args:
        width: The columns of the terminal.
        keys: The swept keys, with the widths of their values; wide ones may be cut.
        others: The other columns, with their widths.
    """
    shown, names = list(keys), list(others)

    def is_too_wide() -> bool:
        needed = [min(max(keys[key], len(word)), _NARROW) for key, word in zip(shown, headings(shown), strict=True)]
        # Without swept keys the first column is the name of the trial
        widths = [*(needed or [NAME]), *(others[name] for name in names)]
        return sum(widths) + SPACE * len(widths) > width

    for name in _DISPENSABLE:
        if is_too_wide() and name in names:
            names.remove(name)
    while is_too_wide() and len(shown) > 1:
        shown.pop()
    return shown, names
