"""The teacher of a distillation: the model of a run folder, or those of an ensemble, and the images that it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runner import numerics, plain_yaml
from runner.assemble.predictor import DataFacts, Predictor, assemble_predictor
from runner.assemble.teacher_images import InputOfTeacher
from runner.engine.combining import combine_log_p
from runner.engine.contracts import Data
from runner.engine.distillation import Teach
from runner.engine.fingerprint import Fingerprint, from_record
from runner.engine.losses import Loss, LossFunction, as_loss, log_softmax
from runner.engine.saving import checkpoint
from runner.engine.saving.ensemble_file import Manifest, Member, digest_of, member_folder, read_manifest
from runner.engine.saving.folder import ENSEMBLE, read_environment
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict, load_part
from runner.engine.weights_file import renamed, sha256_of_tensors
from runner.errors import CheckpointError, ConfigError, brief, escaped, one_line
from runner.hashes import content_of
from runner.registry import Config
from runner.settings import Settings
from runner.weight_sources import TEACHER, Source

_MODEL = "model."
# Groups that the model of a run is built from
_GROUPS = ("model", "activation", "norm", "regularizer", "loss", "preprocess", "predict", "average")


@dataclass(frozen=True, kw_only=True)
class Student:
    """The parts of a run that its teacher must fit.

    Attributes:
        settings, device: Those of the run.
        data, fingerprint: Its data, and what identifies them.
        preprocess: Its preprocessing; with `is_fit` it has its statistics already.
        option: The config of that.
        accept: True if the teacher may compute with formulas that have changed since.
    """

    settings: Settings
    device: torch.device
    data: Data
    fingerprint: Fingerprint
    preprocess: nn.Module
    option: Config
    accept: bool
    is_fit: bool


@dataclass(frozen=True)
class Teacher:
    """A trained model, or several as one.

    Attributes:
        teach: Gives the logits of a batch of the student's images.
        words: What it is, for the summary.
        parameters: The number of its parameters.
        model: The model, None for several.
    """

    teach: Teach
    words: str
    parameters: int
    model: nn.Module | None


def read_teacher(source: Source, student: Student, sha256: str | None) -> Teacher:
    """Return the teacher in a folder.

    Raises:
        ConfigError: The teacher has changed, or knows other classes or images.
        CheckpointError: Its weights are damaged, or a member of an ensemble is missing.
    """
    assert source.file is not None
    folder = Path(source.text)
    if source.kind == "run":
        return _read_run(folder, source.file, student, sha256)
    manifest = read_manifest(folder)
    if sha256 not in (None, found := digest_of(manifest)):
        raise ConfigError(
            f"{TEACHER}: the members of {printable(folder)} have the SHA-256 {found[:12]}..., "
            f"expected {sha256:.12}... (teacher_sha256); restore the ensemble, or start a new run"
        )
    return _joined([_read_member(folder, each, student) for each in manifest.members], manifest)


def _joined(members: Sequence[Teacher], manifest: Manifest) -> Teacher:
    """Return an ensemble as a teacher: its logits are the combined log-probabilities; one member keeps its logits."""
    weights, temperature = [each.weight for each in manifest.members], manifest.temperature

    @torch.no_grad()
    def teach(images: Tensor) -> Tensor:
        if len(members) == 1:
            logits = members[0].teach(images)
        else:
            # Of the softmax in float32, also under autocast
            log_p = torch.stack([each.teach(images).float().log_softmax(1) for each in members])
            logits = combine_log_p(log_p, weights, manifest.combine)
        return logits if temperature == 1 else logits / temperature

    words = members[0].words if len(members) == 1 else f"an ensemble of {len(members)} models"
    return Teacher(teach, words, sum(each.parameters for each in members), None)


def _read_member(folder: Path, member: Member, student: Student) -> Teacher:
    """Return a member of an ensemble as a teacher of its own."""
    own = member_folder(folder, member)
    if content_of(plain_yaml.load(own / "config.yaml"))["digest"] != member.config:
        where = f"{printable(folder / ENSEMBLE)}: the member '{escaped(member.path)}'"
        raise CheckpointError(f"{where}: its config.yaml has changed; restore it, or make the ensemble again")
    return _read_run(own, own / member.weights, student, None)


def _read_run(folder: Path, file: Path, student: Student, sha256: str | None) -> Teacher:
    """Return the model of a run folder, with the weights of a file, as a teacher."""
    theirs = _config_of(folder)
    facts = _facts_of(folder, student)
    teacher = _build_teacher(theirs, facts, student.settings, student.device, folder)
    check_softmax(teacher.loss, TEACHER, printable(folder), f"its loss={theirs['loss']['name']}")
    _load(teacher, theirs, file, sha256, accept=student.accept)
    same = theirs["preprocess"] == student.option
    shape, name = student.data.shape, student.option["name"]
    images = InputOfTeacher(student.preprocess, teacher.preprocess, shape, name, same=same)
    if student.is_fit:
        images.compare(student.device)
    order = [facts.classes.index(each) for each in student.data.classes]
    count = sum(p.numel() for p in teacher.model.parameters())
    return Teacher(_teach_with(teacher.model, images, order), theirs["model"]["name"], count, teacher.model)


def _teach_with(model: nn.Module, images: Callable[[Tensor], Tensor], order: Sequence[int]) -> Teach:
    """Return the teacher's logits of the model's images, as a function; `order` has the place of each class in them."""
    model.requires_grad_(False)
    reordered = list(order) != list(range(len(order)))
    index = torch.tensor(order, device=next(model.parameters()).device)

    @torch.no_grad()
    def teach(inputs: Tensor) -> Tensor:
        logits: Tensor = model(images(inputs))
        return logits.index_select(1, index) if reordered else logits

    return teach


def check_softmax(loss: Loss | LossFunction, key: str, given: str, which: str) -> None:
    """Raise ConfigError unless the probabilities of a loss are the softmax of the logits."""
    if as_loss(loss).log_probabilities is not log_softmax:
        raise ConfigError(
            f"{key}: got {given}, but {which} has no softmax probabilities, which distillation compares; "
            "expected cross_entropy, focal or poly"
        )


def _config_of(folder: Path) -> dict[str, Any]:
    """Return the config of the teacher's run, completed; ConfigError if it is none of this version."""
    path = folder / "config.yaml"
    config = plain_yaml.load(path)
    if not isinstance(config, Mapping) or not all(isinstance(config.get(group), Mapping) for group in _GROUPS):
        raise ConfigError(f"distillation.teacher: {printable(path)} is not a config of this version of runner")
    return numerics.completed(config)


def _facts_of(folder: Path, student: Student) -> DataFacts:
    """Return what the teacher knows of its data; ConfigError unless images and classes are those of the run."""
    data = student.data
    entry = read_environment(folder).get("data")
    known = from_record(entry)
    if known is None or known.classes is None or not isinstance(entry, Mapping):
        raise ConfigError(
            f"distillation.teacher: {printable(folder)} does not say which classes it knows, because an older version "
            "trained it; train it again"
        )
    if entry.get("shape") != list(data.shape):
        theirs, own = ("x".join(map(str, each)) for each in (entry.get("shape") or ["?"], data.shape))
        raise ConfigError(
            f"distillation.teacher: {printable(folder)} was trained on images of {theirs}, and these are {own}"
        )
    if set(known.classes) != set(data.classes):
        other = sorted({*known.classes} ^ {*data.classes})
        raise ConfigError(
            f"distillation.teacher: {printable(folder)} knows other classes than these data "
            f"({brief(', '.join(other))}); expected the same ones, in any order"
        )
    if student.is_fit and _has_seen_validation(known, student.fingerprint):
        raise ConfigError(
            f"{TEACHER}: {printable(folder)} was trained on examples that this run validates on, because its folds are "
            "others; train a teacher with the same folds and fold"
        )
    return DataFacts(shape=data.shape, classes=known.classes, counts=None, reading={}, batch_size=1)


def _has_seen_validation(theirs: Fingerprint, own: Fingerprint) -> bool:
    """Return True if a teacher was trained on the same examples, which are cut into other folds.

    Folds change the listing of a split and not its content, which is that of the whole split.
    """
    (here, there) = (each.parts.get("train") for each in (own, theirs))
    return here is not None and there is not None and here.content == there.content and here.listing != there.listing


def _build_teacher(
    config: Config, facts: DataFacts, settings: Settings, device: torch.device, folder: Path
) -> Predictor:
    """Return the teacher without its weights, in float32 and as the run computes; ConfigError if that cannot be."""
    try:
        return assemble_predictor(
            config, facts, settings._replace(precision="fp32", seed=config["seed"]), device, threads=False
        )
    except ConfigError as error:
        raise ConfigError(f"distillation.teacher: {printable(folder)} cannot be built here: {error}") from error


def _load(teacher: Predictor, config: Config, file: Path, digest: str | None, *, accept: bool) -> None:
    """Load the teacher's weights.

    Raises:
        ConfigError: They have another SHA-256 than `digest`.
        CheckpointError: They are damaged, or of another version whose numbers this one cannot reproduce.
    """
    weights = checkpoint.read_weights(file)
    version = numerics.version_in(checkpoint.meta_of(file), file)
    numerics.check_unchanged(config, version, printable(file), accept=accept, scores_only=True)
    model = StateDict((name, tensor) for name, tensor in weights.items() if name.startswith(_MODEL))
    if digest not in (None, found := sha256_of_tensors(renamed(model, _MODEL, ""))):
        raise ConfigError(
            f"distillation.teacher: the tensors of {printable(file)} have the SHA-256 {found[:12]}..., "
            f"expected {digest:.12}... (teacher_sha256); restore the run, or start a new one"
        )
    try:
        load_part("model", teacher.model, weights)
        load_part("preprocess", teacher.preprocess, weights)
    except RuntimeError as error:
        what = f"{printable(file)} is of another model: {one_line(str(error))}"
        raise CheckpointError(f"distillation.teacher: {what}") from error
