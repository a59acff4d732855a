"""The swept keys of a sweep, the columns of its tables; read from the trials, whose folders' names may be cut."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from runner.tasks.job import Job

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


def format_score(score: float) -> str:
    """Return a score with four decimals, empty for nan."""
    return "" if math.isnan(score) else f"{score:.4f}"
