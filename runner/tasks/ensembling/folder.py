"""The folder of an ensemble: `ensemble.json`, what it says of its data, its result, and copies of members if asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import plain_yaml, user_paths
from runner.engine.provenance import provenance
from runner.engine.saving import checkpoint, storage
from runner.engine.saving.ensemble_file import Combine, Manifest, Member, sha256_of_file, write_manifest
from runner.engine.saving.folder import Result, create, read_environment, read_result, write_result
from runner.engine.saving.manifest import DATA_NAME, name_of
from runner.hashes import CONTENT, content_of
from runner.passwords import masked_word
from runner.status import Status
from runner.tasks.ensembling.candidates import Candidate
from runner.tasks.find_folder import make_run_folder
from runner.tasks.job import Job
from runner.tasks.saved_config import PATHS
from runner.tasks.saved_data import DATA

_CONFIG, _ENVIRONMENT = "config.yaml", "environment.json"
_MEMBERS = "members"


@dataclass(frozen=True, kw_only=True)
class EnsembleRecord:
    """The content of the folder of an ensemble.

    Attributes:
        members: The members, the first of which says what the data are.
        weights: Their shares, which sum to 1.
        combine: What of their predictions is averaged.
        temperature: The number by which the combined log-probabilities are divided.
        predict: The prediction method of all members; None: each has that of its run.
        about: How the members were chosen, and scores, as JSON values.
        scores: The scores for `result.json`.
        test_reads: How often the test split was read.
        seconds: How long it took.
        is_soup: True if the weights of the one member are in no file yet.
    """

    members: Sequence[Candidate]
    weights: Sequence[float]
    combine: Combine
    temperature: float
    predict: dict[str, Any] | None
    about: dict[str, Any]
    scores: dict[str, Any]
    test_reads: int = 0
    seconds: float = 0.0
    is_soup: bool = False


@contextmanager
def new_folder(out: str | None, subject: str, job: Job) -> Iterator[Path]:
    """Create the folder for an ensemble, and remove it again if the body fails.

    That is `out`, or the one that the job names (of a trial, whose log is in it), else a free one under `outputs`.
    """
    if out is None and job.folder is not None:
        folder = make_run_folder(job)
    else:
        name = job.config["name"] or f"ensemble-{subject}"
        folder = create(Path(out or Path(job.config["outputs"]) / name))
    job.opened.append(folder)
    try:
        yield folder
    except BaseException:
        if not job.is_trial:
            with suppress(OSError):
                shutil.rmtree(user_paths.full(folder))
        raise


def write_ensemble(folder: Path, job: Job, record: EnsembleRecord, *, copy: bool, device: str) -> None:
    """Write an ensemble into a new folder; `copy` writes copies of its members into it."""
    if record.is_soup:
        files = [_written(folder, record)]
    else:
        files = [_copied(folder, at, each) if copy else each.run.path for at, each in enumerate(record.members)]
    members = [_member_entry(folder, file, weight) for file, weight in zip(files, record.weights, strict=True)]
    _describe_ensemble(folder, job, record.members[0].run.folder, device=device)
    data = record.members[0].run.data.id
    result = Result(status=Status.DONE, exit=0, scores=record.scores, test_reads=record.test_reads)
    result.seconds = round(record.seconds, 3)
    write_result(folder, replace(result, data=[data] if data else None))
    manifest = Manifest(
        members=tuple(members),
        combine=record.combine,
        temperature=record.temperature,
        predict=record.predict,
        about=record.about,
    )
    # Last: what makes the folder an ensemble
    write_manifest(folder, manifest)


def _member_entry(folder: Path, file: Path, weight: float) -> Member:
    """Return the entry of a member in `ensemble.json`, by the file of its weights in its run folder."""
    place = file.parent.parent
    return Member(
        path=Path(user_paths.relative(user_paths.real(place), user_paths.real(folder))).as_posix(),
        weights=file.relative_to(place).as_posix(),
        sha256=sha256_of_file(file),
        config=content_of(plain_yaml.load(place / _CONFIG))["digest"],
        weight=weight,
    )


def _describe_ensemble(folder: Path, job: Job, origin: Path, *, device: str) -> None:
    """Write overrides, config and environment of a command; what the data are is said as in the run of `origin`."""
    known = read_environment(origin)
    environment = provenance(job.overrides, device=device) | {CONTENT: content_of(job.config)}
    environment |= {key: known[key] for key in (DATA, PATHS) if key in known}
    storage.write_unsynced(folder / "overrides.yaml", plain_yaml.dump(list(map(masked_word, job.overrides))))
    storage.write_atomic(folder / _ENVIRONMENT, json.dumps(environment, indent=1).encode())
    storage.write_atomic(folder / _CONFIG, plain_yaml.dump(job.config))


def _copied(folder: Path, number: int, model: Candidate) -> Path:
    """Copy what the predictions of a model need of its run folder, and return the file of its weights."""
    source, weights = model.run.folder, Path(model.weights)
    place = _make_member_folder(folder, f"{number:03d}-{Path(model.name).name}", weights)
    match = DATA_NAME.fullmatch(weights.name)
    beside = [weights.with_name(name_of(int(match["step"])))] if match else []
    for name in (Path(_CONFIG), Path(_ENVIRONMENT), weights, *beside):
        if user_paths.is_file(source / name, key="runs"):
            with storage.convert_os_errors(place / name):
                shutil.copyfile(user_paths.full(source / name), user_paths.full(place / name))
    # Read again: a read of the test split may have been counted meanwhile
    write_result(place, replace(read_result(source), weights=model.weights, snapshots=None))
    return place / weights


def _written(folder: Path, record: EnsembleRecord) -> Path:
    """Write the run folder of a soup, like that of its first model with other weights, and return their file."""
    model = record.members[0]
    place = _make_member_folder(folder, model.name, Path(model.weights))
    for name in (_CONFIG, _ENVIRONMENT):
        if user_paths.is_file(model.run.folder / name, key="runs"):
            with storage.convert_os_errors(place / name):
                shutil.copyfile(user_paths.full(model.run.folder / name), user_paths.full(place / name))
    file = checkpoint.save_weights(place, model.run.step or 0, model.state(), meta=model.run.meta)
    result = replace(model.run.result, scores=record.scores, test_reads=record.test_reads)
    write_result(place, replace(result, weights=file.relative_to(place).as_posix(), snapshots=None))
    return file


def _make_member_folder(folder: Path, name: str, weights: Path) -> Path:
    """Create the folder of a member inside the folder of its ensemble, with the one for its weights."""
    place = folder / _MEMBERS / name
    storage.make_folders((place / weights).parent)
    return place
