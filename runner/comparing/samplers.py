"""The samplers that chose the trials of a sweep, as its folder says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner import plain_yaml, user_paths
from runner.comparing.runs import Run
from runner.errors import ConfigError
from runner.search.ranking import RESULTS
from runner.search.records import NON_ADAPTIVE

# Folders of a sweep may have others between them and its trials (`hydra.sweep.subdir`)
_MOST_ABOVE = 3


def adaptive_samplers(runs: Iterable[Run]) -> list[str]:
    """Return the samplers that chose some of the runs by the scores of others, in alphabetical order."""
    places = {place for run in runs for place in list(run.folder.parents)[:_MOST_ABOVE]}
    return sorted({name for place in places if (name := _sampler_in(place)) and name not in NON_ADAPTIVE})


def _sampler_in(folder: Path) -> str | None:
    """Return the sampler of a sweep, None if the folder holds no search that has ended."""
    try:
        if not user_paths.is_file(folder / RESULTS, key="runs"):
            return None
        found = plain_yaml.load(folder / RESULTS)
    except ConfigError:
        return None
    name = found.get("name") if isinstance(found, dict) else None
    sampler = "refine" if name == "refine" else found.get("sampler") if name == "optuna" else None
    return sampler if isinstance(sampler, str) else None
