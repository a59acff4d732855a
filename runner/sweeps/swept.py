"""The swept keys of a sweep, the columns of its tables; read from the trials, whose folders' names may be cut."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runner.keys import short_keys
from runner.screen_tables import fits
from runner.tasks.job import Job

if TYPE_CHECKING:
    from rich.console import Console

# Columns of tables begin with a space to differ from keys
TRIAL = " trial"

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


def naming_columns(
    jobs: Sequence[Job],
    swept: Sequence[str],
    names: Sequence[str],
    others: Sequence[Mapping[str, str]],
    screen: Console,
) -> list[dict[str, str]]:
    """Return the columns that name trials: one for each swept key if they have room beside others, else one for all.

    Args:
        jobs: The trials.
        swept: The swept keys; without any the column has the trials' names.
        names: The trials' names.
        others: The columns beside which they must fit.
        screen: The console.
    """
    if not swept:
        return [{TRIAL: name} for name in names]
    short, values = short_keys(swept), [values_of(job) for job in jobs]
    columns = [{key: given.get(key, "") for key in swept} for given in values]
    if not jobs or fits([{**row, **beside} for row, beside in zip(columns, others, strict=True)], screen, short):
        return columns
    return [
        {" configuration": ",".join(f"{short[key]}={given[key]}" for key in swept if key in given)} for given in values
    ]


def format_score(score: float) -> str:
    """Return a score with four decimals, empty for nan."""
    return "" if math.isnan(score) else f"{score:.4f}"
