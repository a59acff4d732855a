"""The models that can be members of an ensemble: found, read and compared; duplicates are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.assemble.predictor import DataFacts, Predictor
from runner.comparing.runs import Found, Run, find_runs
from runner.engine.fingerprint import differences
from runner.engine.saving import checkpoint
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict
from runner.engine.weights_file import sha256_of_tensors
from runner.errors import ConfigError, brief
from runner.hashes import digest
from runner.printing import counted
from runner.tasks.job import Job
from runner.tasks.predictions import about_predictions
from runner.tasks.report import print_progress
from runner.tasks.trained.members import members_of
from runner.tasks.trained.saved_run import SavedRun, known_facts, read_member, restore_member

_KEY = "runs"
# Groups of a config that decide, with the weights, what a model predicts
_PREDICTS = ("model", "activation", "norm", "regularizer", "preprocess", "predict", "loss")
# Keys of a command that are about the ensemble, and not about its members
_OWN = (_KEY, "seed", "name", "figures", "predictions", "hydra", "sweep")
# Names that a line lists at most
_MOST_NAMES = 5


@dataclass(frozen=True)
class Candidate:
    """A model that can be a member.

    Attributes:
        run: Its run, without its tensors: a sweep has more models than fit into memory.
        name: What it is called in tables.
        tensors: The tensors of a soup, which are in no file.
    """

    run: SavedRun
    name: str
    tensors: StateDict | None = None

    def state(self) -> StateDict:
        """Return its tensors by name; raises CheckpointError if their file is damaged."""
        return self.tensors if self.tensors is not None else checkpoint.read_weights(self.run.path)

    @property
    def weights(self) -> str:
        """Return the file of its weights, relative to its run folder."""
        return self.run.path.relative_to(self.run.folder).as_posix()

    @cached_property
    def facts(self) -> DataFacts:
        """Return what it knows of its data."""
        return known_facts(self.run)

    def predictor(self) -> Predictor:
        """Return the model with its weights."""
        return restore_member(replace(self.run, weights=self.state()), self.facts, threads=True)

    @property
    def about(self) -> Mapping[str, Any]:
        """Return what the metadata of its own predictions on validation say."""
        found = about_predictions(
            self.run.config["predict"],
            step=self.run.step,
            weights=self.weights,
            data=str(self.run.data.id),
            classes=self.facts.classes,
        )
        # An evaluation and the run itself count steps of their own
        del found["step"]
        return found

    @cached_property
    def identity(self) -> tuple[str, str]:
        """Return what two models have in common that predict the same."""
        return sha256_of_tensors(self.state()), digest([self.run.config[key] for key in _PREDICTS])


def find_candidates(patterns: Sequence[str], job: Job) -> list[Candidate]:
    """Return the models that patterns name, each once, and print a line about each kind that is left out.

    Raises:
        ConfigError: There is none, or two are on different data, or of different shapes or classes.
        CheckpointError: The weights of one are damaged.
    """
    found = find_runs(patterns)
    complete = [run for run in found.runs if run.result.status.complete and run.result.weights]
    for line in _left_out(found, complete):
        print_progress(line)
    if not complete:
        raise ConfigError(f"{_KEY}: {_none_usable(found)}")
    words = tuple(word for word in job.overrides if _top(word) not in _OWN)
    named = zip(complete, _names_of([run.folder for run in complete]), strict=True)
    models = [model for run, name in named for model in _models_of(run, name, replace(job, overrides=words))]
    models = _without_copies(models)
    _check_same_data(models)
    return models


def _models_of(run: Run, name: str, job: Job) -> Iterator[Candidate]:
    """Yield the models of a run: its snapshots, if it kept some, else the one with the weights that it selected."""
    snapshots = [each for each in members_of(run.folder) if "snapshot" in each.roles]
    files = {f"{name}/step={each.step}": each.file for each in snapshots} or {name: str(run.result.weights)}
    for own, file in files.items():
        found = read_member(run.folder, job, key=_KEY, weights=file)
        yield Candidate(replace(found, weights=StateDict()), own)


def _top(word: str) -> str:
    """Return the first part of the key of an override."""
    return word.lstrip("+").partition("=")[0].partition(".")[0].partition("/")[0]


def _names_of(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: its own, with as many of those above it as tell it from the others."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _none_usable(found: Found) -> str:
    """Return why no run that was found can be a member."""
    if not found.runs:
        return "no training run found that can be read"
    run = found.runs[0]
    if not run.result.status.complete:
        return f"no run is complete ({printable(run.folder)} is {run.result.status}); train them to their end"
    return "no run has weights (keep=none, or task=clean removed them); train them again with keep=best"


def _left_out(found: Found, complete: Sequence[Run]) -> Iterator[str]:
    """Yield a line about each kind of folder that is no candidate."""
    used = {run.folder for run in complete}
    others: dict[str, list[Path]] = {}
    for run in found.runs:
        if run.folder not in used:
            why = "without weights" if run.result.status.complete else str(run.result.status)
            others.setdefault(why, []).append(run.folder)
    for folder, reason in found.unreadable.items():
        others.setdefault(f"unreadable ({brief(reason)})", []).append(folder)
    others |= {"of other tasks": found.others} if found.others else {}
    others |= {"that were made again": found.replaced} if found.replaced else {}
    for why, folders in others.items():
        yield f"left out {counted(len(folders), 'folder')} {why}: {_listed(folders)}"


def _listed(folders: Sequence[Path]) -> str:
    """Return the paths of some folders, at most a few."""
    more = f" and {len(folders) - _MOST_NAMES} more" if len(folders) > _MOST_NAMES else ""
    return ", ".join(printable(folder) for folder in folders[:_MOST_NAMES]) + more


def _without_copies(models: Sequence[Candidate]) -> list[Candidate]:
    """Return models without those that predict the same as an earlier one, and print a line for each of these."""
    first: dict[tuple[str, str], Candidate] = {}
    for model in models:
        if (other := first.setdefault(model.identity, model)) is not model:
            print_progress(f"left out {model.name}: the same model as {other.name}")
    return list(first.values())


def _check_same_data(models: Sequence[Candidate]) -> None:
    """Raise ConfigError if a model is on other data than the first, or of another shape or other classes."""
    first = models[0]
    for other in models[1:]:
        ours, theirs = first.run.data, other.run.data
        both = f"{printable(first.run.folder)} and {printable(other.run.folder)}"
        if ours.id != theirs.id:
            why = "one does not say which" if None in (ours.id, theirs.id) else "other examples"
            if ours.fingerprint and theirs.fingerprint:
                why = differences(ours.fingerprint, theirs.fingerprint) or why
            raise ConfigError(f"{_KEY}: {both} are on different data ({why}); members must have the same")
        if first.facts.shape != other.facts.shape:
            raise ConfigError(f"{_KEY}: {both} have examples of different shapes; members must have the same")
        if set(first.facts.classes) != set(other.facts.classes):
            raise ConfigError(f"{_KEY}: {both} have different classes; members must have the same")
