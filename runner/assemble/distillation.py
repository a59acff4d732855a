"""The recipe with the teacher of a distillation: the model of a run folder, and the images that it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runner import numerics, plain_yaml
from runner.assemble.predictor import DataFacts, Predictor, assemble_predictor
from runner.engine.contracts import Data
from runner.engine.distillation import Distillation, Distiller, Teach
from runner.engine.fingerprint import from_record
from runner.engine.losses import Loss, LossFunction, as_loss, log_softmax
from runner.engine.recipe import Recipe
from runner.engine.saving import checkpoint
from runner.engine.saving.folder import read_environment
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict, load_part
from runner.engine.weights_file import renamed, sha256_of_tensors
from runner.errors import CheckpointError, ConfigError, brief, one_line
from runner.registry import Config, build
from runner.settings import Settings
from runner.weight_sources import TEACHER, find_teacher, teacher_of

_GROUP = "distillation"
_MODEL = "model."
_WHITE = 255.0
# Groups that the model of a run is built from
_GROUPS = ("model", "activation", "norm", "regularizer", "loss", "preprocess", "predict", "average")


def with_teacher(
    config: Config,
    settings: Settings,
    recipe: Recipe,
    data: Data,
    preprocess: nn.Module,
    device: torch.device,
    *,
    fit: bool,
) -> tuple[Recipe, list[str]]:
    """Return a recipe with the gradients of a distillation, if there is one, and a summary line about the teacher.

    With `fit`, `preprocess` has its statistics already.

    Raises:
        ConfigError: The teacher is missing, has changed, or knows other classes or images.
        CheckpointError: The teacher's weights are damaged.
    """
    made: Distillation | None = build(_GROUP, config[_GROUP])
    named = teacher_of(config) if made else None
    if made is None or named is None:
        return recipe, []
    _check_softmax(recipe.loss, "loss", config["loss"]["name"], "this loss")
    source = find_teacher(named[0])
    assert source.file is not None
    folder = Path(source.text)
    theirs = _config_of(folder)
    facts = _facts_of(folder, data)
    teacher = _build_teacher(theirs, facts, settings, device, folder)
    _check_softmax(teacher.loss, TEACHER, printable(folder), f"its loss={theirs['loss']['name']}")
    _load(teacher, theirs, source.file, made.sha256, accept=config["resume_numerics"] == "new")
    own, same = config["preprocess"], theirs["preprocess"] == config["preprocess"]
    images = _InputOfTeacher(preprocess, teacher.preprocess, data.shape, own["name"], same=same)
    if fit:
        images.compare(device)
    order = [facts.classes.index(each) for each in data.classes]
    distiller = Distiller(made, _teach_with(teacher.model, images, order))
    count = sum(p.numel() for p in teacher.model.parameters())
    line = f"{_GROUP}: the teacher is {printable(folder)} ({theirs['model']['name']}, {count:,} parameters)"
    return replace(recipe, gradients=distiller.gradients, probes=[*recipe.probes, distiller.probe]), [line]


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


class _InputOfTeacher:
    """The images of a step under the teacher's preprocessing, from those under the model's own.

    Equal preprocessing leaves them as they are. Another one gets the raw images, if the model's own scales and shifts
    each value, so that it can be undone; augmented and mixed images stay so.

    Args:
        own: The preprocessing of the model; on a resumed run it has its statistics only when training begins.
        theirs: That of the teacher.
        shape: (C, H, W) of an image.
        name: The option of the model's own.
        same: True if both have the same option and knobs.
    """

    def __init__(
        self, own: nn.Module, theirs: nn.Module, shape: tuple[int, int, int], name: str, *, same: bool
    ) -> None:
        self.own, self.theirs, self.shape, self.name, self.same = own, theirs, shape, name, same
        self._undo: tuple[Tensor, Tensor] | None = None
        self._is_known = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32 as the teacher needs them."""
        if not self._is_known:
            self.compare(images.device)
        if self._undo is None:
            return images
        shift, scale = self._undo
        found: Tensor = self.theirs((images - shift) / scale)
        return found

    @torch.no_grad()
    def compare(self, device: torch.device) -> None:
        """Find out how the model's preprocessing is undone; ConfigError if it must be and cannot be."""
        own, theirs = self.own.state_dict(), self.theirs.state_dict()
        self._is_known = True
        if self.same and all(torch.equal(own[name], theirs[name]) for name in own):
            return
        first, last = (self.own(torch.full((1, *self.shape), value, device=device)) for value in (0.0, _WHITE))
        scale = (last - first) / _WHITE
        trial = torch.rand((1, *self.shape), generator=torch.Generator().manual_seed(0)).to(device) * _WHITE
        undone = (self.own(trial) - first) / scale
        if not bool((scale != 0).all()) or not torch.allclose(undone, trial, rtol=1e-3, atol=0.05):
            raise ConfigError(
                f"distillation.teacher: its images had another preprocessing, and preprocess={self.name} cannot be "
                "undone; use the teacher's option and data, or preprocess=standardize"
            )
        self._undo = (first, scale)


def _check_softmax(loss: Loss | LossFunction, key: str, given: str, which: str) -> None:
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


def _facts_of(folder: Path, data: Data) -> DataFacts:
    """Return what the teacher knows of its data; ConfigError unless images and classes are those of the run."""
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
    return DataFacts(shape=data.shape, classes=known.classes, counts=None, reading={}, batch_size=1)


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
