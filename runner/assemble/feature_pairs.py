"""The stages whose features a distillation compares: those of the model with those of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from runner.assemble.teachers import Teacher
from runner.assemble.transfer import StagePlans
from runner.components.model.stages import Stage, readers_of, stages
from runner.engine.distillation import Distillation
from runner.engine.forward import plain_forward
from runner.engine.parts import mode
from runner.engine.recipe import Recipe
from runner.engine.similarity import FeatureDistiller
from runner.engine.stage_inputs import Readers, reading_stages
from runner.errors import ConfigError, unknown
from runner.registry import Config
from runner.settings import Settings

_KEY = "distillation.features"
_PAIRS = "distillation.stages"
_Shape = tuple[int, int, int]
_Pair = tuple[str, str]
# The number of images of a trial: one that no other dimension of features is likely to have
_TRIAL = 3


@dataclass(frozen=True)
class _Side:
    """One of the two models.

    Attributes:
        model: The model.
        words: What it is called in messages.
        stages: Its stages, from the input to the head.
        training: True if it runs in training mode.
    """

    model: nn.Module
    words: str
    stages: Sequence[Stage]
    training: bool

    @property
    def names(self) -> list[str]:
        """Return the names of the stages that have features: all but the head."""
        return [stage.name for stage in self.stages[:-1]]

    def readers(self, names: Sequence[str], shape: _Shape) -> Readers:
        """Return what reads the features of stages; ConfigError unless each has one tensor with a row per image."""
        every = readers_of(self.model, self.stages)
        chosen = {name: every[name] for name in names}
        rows: dict[str, int] = {}

        def keep(name: str, _: nn.Module, features: Tensor) -> None:
            rows[name] = len(features)

        # On the meta device, which draws no random numbers and changes no buffers
        both = chain(self.model.named_parameters(), self.model.named_buffers())
        tensors = {name: tensor.to("meta") for name, tensor in both}
        reading = reading_stages(self.model, chosen, keep)
        with mode(self.model, training=self.training), torch.no_grad(), torch.device("meta"), reading:
            torch.func.functional_call(self.model, tensors, (torch.zeros(_TRIAL, *shape),))
        for name in names:
            if rows.get(name) != _TRIAL:
                raise ConfigError(
                    f"{_PAIRS}: the features of stage {name} of {self.words} are not one tensor with a row for each "
                    f"image; choose from {', '.join(each for each in self.names if each != name) or 'no other'}"
                )
        return chosen


def with_plain_forward(recipe: Recipe, settings: Settings) -> Recipe:
    """Return a recipe that reads features in the forward pass; ConfigError if it must be a compiled or captured one."""
    for key in ("compile", "cuda_graphs"):
        if getattr(settings, key) is True:
            raise ConfigError(
                f"{key}: got true, must be false with {_KEY} > 0, whose features only the plain forward pass gives"
            )
    return replace(recipe, forward=plain_forward, compiled=False)


def feature_distiller(
    config: Config, made: Distillation, teacher: Teacher, model: nn.Module, plans: StagePlans, shape: _Shape
) -> tuple[FeatureDistiller, str]:
    """Return the distillation that compares features, and a summary line about it.

    Raises:
        ConfigError: The teacher is an ensemble, a stage is unknown, or its features cannot be compared or changed.
    """
    if teacher.model is None:
        raise ConfigError(
            f"{_KEY}: got {made.features:g}, must be 0 with an ensemble as teacher, whose members have features of "
            "their own; or give a single run"
        )
    own = _side(model, f"model={config['model']['name']}", made, shape, training=True)
    theirs = _side(teacher.model, f"the teacher ({teacher.words})", made, shape, training=False)
    pairs = _pairs(made, own, theirs)
    _check_trained(config, made, plans, pairs)
    distiller = FeatureDistiller(
        made,
        teacher.teach,
        teacher=teacher.model,
        own=own.readers(list(dict.fromkeys(name for name, _ in pairs)), shape),
        theirs=theirs.readers(list(dict.fromkeys(name for _, name in pairs)), shape),
        pairs=pairs,
        weight=made.features,
    )
    return distiller, f"distillation: compares features: {', '.join(f'{a} with {b} of the teacher' for a, b in pairs)}"


def _side(model: nn.Module, words: str, made: Distillation, shape: _Shape, *, training: bool) -> _Side:
    """Return a model with its stages; ConfigError if it has only a head."""
    found = stages(model, shape)
    if len(found) < 2:
        raise ConfigError(
            f"{_KEY}: got {made.features:g}, must be 0 with {words}, whose one stage is the head: it has no features"
        )
    return _Side(model, words, found, training)


def _pairs(made: Distillation, own: _Side, theirs: _Side) -> list[_Pair]:
    """Return the names of the stages that are compared; ConfigError if a model has no such stage."""
    if made.stages is None:
        return [(own.names[-1], theirs.names[-1])]
    for number, pair in enumerate(made.stages):
        for place, (side, name) in enumerate(zip((own, theirs), pair, strict=True)):
            if name not in side.names:
                raise unknown(f"{_PAIRS}[{number}][{place}]", f"stage of {side.words}", name, side.names)
    return list(made.stages)


def _check_trained(config: Config, made: Distillation, plans: StagePlans, pairs: Sequence[_Pair]) -> None:
    """Raise ConfigError if `transfer` never trains anything that changes the features of a stage."""
    names = [stage.name for stage in plans.stages]
    for name in dict.fromkeys(own for own, _ in pairs) if names else ():
        if all(plan.first is None for plan in plans.transfer.stages[: names.index(name) + 1]):
            raise ConfigError(
                f"{_KEY}: got {made.features:g}, but transfer={config['transfer']['name']} never trains stage {name} "
                "or one below it; compare the features of a trained stage, or set 0"
            )
