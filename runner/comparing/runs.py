"""Read training runs from their folders; nothing is written, and unreadable folders are reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from runner import plain_yaml, user_paths
from runner.engine.fingerprint import Fingerprint, from_record
from runner.engine.logs.plugin_pages import flat_hparams
from runner.engine.logs.sinks import METRICS, read_metrics
from runner.engine.monitor import Monitor
from runner.engine.saving.evidence import monitor_of, standing
from runner.engine.saving.folder import REPLACED, RESULT, Result, read_environment
from runner.engine.saving.storage import printable, read
from runner.errors import ConfigError
from runner.hashes import CONTENT, content_of
from runner.keys import hyperparameters
from runner.numerics import BEFORE_SCHEMA_2, check_unchanged, completed
from runner.status import Status

CONFIG = "config.yaml"
# Bytes of overrides, which a user may have replaced
_MAX_OVERRIDES = 1 << 20
# Losses whose probabilities, if any, are not the softmax of the logits
_NOT_SOFTMAX = ("bce", "hinge", "mse")
Series = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: its config, its result, and its curves, which are read on first use."""

    folder: Path
    config: dict[str, Any]
    result: Result
    environment: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])

    @property
    def started(self) -> str:
        """The start of the run as ISO 8601 in UTC, empty if unknown."""
        return str(self.environment.get("started", ""))

    @cached_property
    def hparams(self) -> dict[str, bool | float | str]:
        """The hyperparameters as one flat mapping without the seed: equal for all seeds of a configuration."""
        return flat_hparams(hyperparameters(self.config))

    @property
    def data(self) -> str | None:
        """The fingerprint of the data that the run read last, None if an older version wrote it."""
        return self.result.data[-1] if self.result.data else None

    @cached_property
    def fingerprint(self) -> Fingerprint | None:
        """The splits and classes behind `data`, None if they are not known."""
        found = from_record(self.environment.get("data"))
        return found if found and found.id == self.data else None

    @cached_property
    def metrics(self) -> list[tuple[int, dict[str, float]]]:
        """The logged numbers as (step, {tag: number}); empty if the log is missing or damaged."""
        try:
            return list(read_metrics(self.folder / METRICS))
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return []

    def series(self, tag: str) -> Series:
        """Return the curve of one tag as (step, number)."""
        found = [(step, row[tag]) for step, row in self.metrics if tag in row]
        if not found and Monitor(tag).metric == "nll" and self._loss_is_nll:
            return self.series(f"{Monitor(tag).split}/loss")
        return found

    @property
    def _loss_is_nll(self) -> bool:
        """True if the losses of evaluations are negative log-likelihoods of the probabilities that the loss trains.

        In results of schema 1 they are those of the softmax; in later ones only where the loss is the same number.
        """
        if self.result.schema == 1:
            return self.config["loss"].get("name") not in _NOT_SOFTMAX
        return not check_unchanged(self.config, BEFORE_SCHEMA_2, self.folder, accept=True, scores_only=True)

    def score(self, metric: str, at: str) -> float | None:
        """Return a score of a complete run, None if there is none.

        Args:
            metric: `<split>/<metric>`, as in `val/accuracy`. `nll` of an older run is its loss, where that is one.
            at: `last` or `best` validation; ignored for the test split.
        """
        if not self.result.status.complete:
            return None
        split, name = Monitor(metric).split, Monitor(metric).metric
        name = "loss" if name == "nll" and self._loss_is_nll else name
        found: Any = self.result.scores
        for word in (split, name) if split == "test" else (split, at, name):
            found = found.get(word) if isinstance(found, dict) else None
        return float(found) if isinstance(found, (int, float)) else None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The run folders found."""

    runs: list[Run] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)  # folder and reason
    others: list[Path] = field(default_factory=list)  # folders of other tasks than training
    replaced: list[Path] = field(default_factory=list)  # folders of runs that `rerun=changed` replaced by new ones


def find_runs(patterns: Sequence[str]) -> Found:
    """Return the training runs that patterns name: run folders, or folders that contain runs (a sweep: its trials).

    Raises ConfigError for a pattern without a run.
    """
    folders: dict[Path, None] = {}
    for pattern in patterns:
        matches = [Path(pattern)] if _is_folder(pattern) else user_paths.matching(pattern)
        below = [run for match in matches for run in run_folders(match)]
        if not below:
            raise ConfigError(_none_found(pattern, matches))
        folders |= dict.fromkeys(below)
    found, named = Found(), {Path(pattern) for pattern in patterns}
    for folder in folders:
        if folder not in named and user_paths.exists(folder / REPLACED):
            found.replaced.append(folder)
        else:
            _read_into(found, folder)
    _place_lost(found)
    return found


def _is_folder(pattern: str) -> bool:
    """Return True if a pattern is the path of a folder; what is too long for a path may be a pattern."""
    try:
        return user_paths.is_dir(pattern, key="runs")
    except ConfigError:
        if set(pattern) & set("*?["):
            return False
        raise


def _none_found(pattern: str, matches: Sequence[Path]) -> str:
    """Return the message for a pattern without a run."""
    wanted = f"a run folder has a {CONFIG} and a {RESULT}"
    if not matches:
        here = printable(Path(user_paths.absolute("")))
        return f"runs: no run found for '{pattern}' (there is no such folder in {here}; {wanted})"
    return f"runs: '{pattern}' is not a run folder and contains none ({wanted})"


def run_folders(top: Path) -> Iterator[Path]:
    """Yield the run folders at and below a folder, in order of name; folders inside a run are skipped."""
    for place, below, files in user_paths.walk(top):
        if RESULT in files or CONFIG in files:
            below.clear()
            yield Path(place)
        below[:] = sorted(name for name in below if not name.startswith("."))


def _read_into(found: Found, folder: Path) -> None:
    """Read one run folder and add it to the runs, the unreadable ones or the others.

    A run whose result cannot be read, or does not prove its status, is one that failed.
    """
    try:
        saved = plain_yaml.load(folder / CONFIG)
        config = completed(saved)
        name = config["task"]["name"]
        int(config["seed"])
    except ConfigError as error:
        found.unreadable[folder] = str(error).removeprefix(f"{printable(folder)}/")
    except (KeyError, TypeError, ValueError, AttributeError):
        found.unreadable[folder] = f"{CONFIG}: is not the config of a run"
    else:
        environment = read_environment(folder)
        if name != "train":
            found.others.append(folder)
        elif environment.get(CONTENT) not in (None, content_of(saved)):
            found.unreadable[folder] = f"{CONFIG}: was edited after the run began"
        else:
            result = standing(folder, monitor_of(config))
            found.runs.append(Run(folder=folder, config=config, result=result, environment=environment))


def _place_lost(found: Found) -> None:
    """Turn runs without a valid config into failed runs of their configuration, where its other runs are known.

    What the config was is known from its digest in environment.json.
    """
    configs = {str(_content_in(run.environment).get("digest")): run.config for run in found.runs}
    for folder in list(found.unreadable):
        environment = read_environment(folder)
        content = _content_in(environment)
        if type(content.get("seed")) is int and content.get("digest") in configs:
            config = {**configs[content["digest"]], "seed": content["seed"]}
            result = Result(status=Status.FAILED, reason=found.unreadable.pop(folder))
            found.runs.append(Run(folder=folder, config=config, result=result, environment=environment))


def _content_in(environment: dict[str, Any]) -> dict[str, Any]:
    """Return seed and digest of the config that a run began with, empty if an older version wrote its folder."""
    content = environment.get(CONTENT)
    return content if isinstance(content, dict) else {}


def read_overrides(folder: Path) -> list[str]:
    """Return the overrides of a run's command line, none if they cannot be read."""
    try:
        content = yaml.safe_load(read(folder / "overrides.yaml", _MAX_OVERRIDES))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return [str(word) for word in content] if isinstance(content, list) else []
